"""Writes tests/golden/hugging_face/*.json: `python -m tests.golden.make.hugging_face [FAMILY ...]`.

Needs torch and transformers. Each file is a small model of odd sizes with weights drawn from their names, and what
transformers computes with it: logits, loss, greedy tokens.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import safetensors.numpy
import torch
import transformers

from tests.golden.hugging_face_weights import weights
from tests.golden.make.hugging_face_kinds import (
    DECODER,
    DECODING,
    DISCRIMINATOR,
    ENCODER,
    ENCODER_DECODER,
    IMAGE_PREFIX,
    IMAGES,
    KINDS,
    PAIRS,
    V,
    greedy,
)

FOLDER = pathlib.Path("tests/golden/hugging_face")
LLAMA = {
    "vocab_size": V,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
GEMMA = LLAMA | {"head_dim": 6, "tie_word_embeddings": True}
LOCAL_GEMMA = GEMMA | {"query_pre_attn_scalar": 5, "sliding_window": 4}
T5 = {
    "vocab_size": V,
    "d_model": 20,
    "d_kv": 6,
    "d_ff": 18,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "dropout_rate": 0.0,
}
BERT = {
    "vocab_size": V,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 18,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
BART = {
    "vocab_size": V,
    "d_model": 20,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 18,
    "decoder_ffn_dim": 18,
    "max_position_embeddings": 16,
    "dropout": 0.0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
# Read within the original length, so that the short factors hold.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0, 1.5, 2.5],
    "long_factor": [1.0, 3.0, 5.0],
}
IMAGE = {
    "hidden_size": 24,
    "intermediate_size": 22,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 6,
    "patch_size": 3,
}
TEXT = {
    "vocab_size": V,
    "hidden_size": 20,
    "intermediate_size": 18,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 9,
}
PALIGEMMA = {
    "vision_config": IMAGE | {"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 24},
    "text_config": GEMMA | {"model_type": "gemma", "num_image_tokens": 4},
    "image_token_index": V - 1,
    "projection_dim": 24,
    "hidden_size": 24,
}
# family: (class, kind, settings)
MODELS = {
    "llama": ("LlamaForCausalLM", DECODER, LLAMA | {"rope_parameters": LLAMA3}),
    "mistral": ("MistralForCausalLM", DECODER, LLAMA | {"sliding_window": 4, "head_dim": 6}),
    "qwen2": ("Qwen2ForCausalLM", DECODER, LLAMA | {"rope_parameters": YARN}),
    "qwen3": (
        "Qwen3ForCausalLM",
        DECODER,
        LLAMA | {"head_dim": 6, "tie_word_embeddings": True, "rope_parameters": LONGROPE},
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        DECODER,
        LLAMA
        | {"head_dim": 6, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
        | {"norm_topk_prob": True},
    ),
    "mixtral": (
        "MixtralForCausalLM",
        DECODER,
        LLAMA | {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 4},
    ),
    "gemma": ("GemmaForCausalLM", DECODER, GEMMA),
    "gemma2": (
        "Gemma2ForCausalLM",
        DECODER,
        LOCAL_GEMMA | {"num_hidden_layers": 3, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5},
    ),
    "gemma3": ("Gemma3ForCausalLM", DECODER, LOCAL_GEMMA | {"num_hidden_layers": 7}),
    "gpt2": (
        "GPT2LMHeadModel",
        DECODER,
        {"vocab_size": V, "n_positions": 16, "n_embd": 20, "n_layer": 2, "n_head": 4, "n_inner": 18}
        | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
    "gpt_neox": (
        "GPTNeoXForCausalLM",
        DECODER,
        {
            "vocab_size": V,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 18,
            "rotary_pct": 0.5,
            "max_position_embeddings": 32,
        },
    ),
    "bloom": ("BloomForCausalLM", DECODER, {"vocab_size": V, "hidden_size": 18, "n_layer": 2, "n_head": 3}),
    "t5_1_0": ("T5ForConditionalGeneration", ENCODER_DECODER, T5 | {"feed_forward_proj": "relu"}),
    "t5_1_1": (
        "T5ForConditionalGeneration",
        ENCODER_DECODER,
        T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": (
        "MT5ForConditionalGeneration",
        ENCODER_DECODER,
        T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "ul2": (
        "T5ForConditionalGeneration",
        ENCODER_DECODER,
        T5 | {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
    ),
    "umt5": (
        "UMT5ForConditionalGeneration",
        ENCODER_DECODER,
        T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "bart": ("BartForConditionalGeneration", ENCODER_DECODER, BART),
    "mbart": ("MBartForConditionalGeneration", ENCODER_DECODER, BART | {"scale_embedding": True}),
    "bert": ("BertForMaskedLM", ENCODER, BERT),
    "roberta": ("RobertaForMaskedLM", ENCODER, BERT | {"type_vocab_size": 1, "pad_token_id": 1}),
    "albert": ("AlbertForMaskedLM", ENCODER, BERT | {"embedding_size": 12, "num_hidden_layers": 3}),
    "electra": ("ElectraForPreTraining", DISCRIMINATOR, BERT | {"embedding_size": 12}),
    "electra_generator": ("ElectraForMaskedLM", ENCODER, BERT | {"embedding_size": 12}),
    "vit": ("ViTForImageClassification", IMAGES, IMAGE | {"num_labels": 7}),
    "clip": (
        "CLIPModel",
        PAIRS,
        {"text_config": TEXT | {"eos_token_id": V - 1}, "vision_config": IMAGE, "projection_dim": 10},
    ),
    "siglip": ("SiglipModel", PAIRS, {"text_config": TEXT | {"projection_size": 24}, "vision_config": IMAGE}),
    "paligemma": ("PaliGemmaForConditionalGeneration", IMAGE_PREFIX, PALIGEMMA),
    "modernbert": (
        "ModernBertForMaskedLM",
        ENCODER,
        {
            "vocab_size": V,
            "hidden_size": 20,
            "num_hidden_layers": 5,
            "num_attention_heads": 5,
            "intermediate_size": 18,
            "local_attention": 4,
            "max_position_embeddings": 32,
            "pad_token_id": 0,
        },
    ),
}


def build(family: str, folder: pathlib.Path):
    """(the golden without results, the model with the weights drawn from their names)."""
    name, kind, settings = MODELS[family]
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**settings, attn_implementation="eager"))
    model.save_pretrained(folder)
    with safetensors.safe_open(str(folder / "model.safetensors"), framework="np") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  no mapping
    config = json.loads((folder / "config.json").read_text())
    if kind == ENCODER_DECODER and settings.get("tie_word_embeddings") is False:
        # transformers 5 ties a T5 that it makes; the released T5 1.1 have a head of their own, and say so.
        shapes["lm_head.weight"] = shapes["shared.weight"]
        config |= {"tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
    golden = {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}, {name}",
        "family": family,
        "kind": kind,
        # Gemma's scales are 1 + w; those of PaliGemma's images are not.
        "scales_around": 0.0 if "gemma" in family else 1.0,
        "scales_around_one": "vision_tower.",
        "config": config,
        "tensors": shapes,
    }
    safetensors.numpy.save_file(weights(golden), str(folder / "model.safetensors"), metadata={"format": "pt"})
    model, report = cls.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        raise ValueError(f"{family}: {report}")
    return golden, model.eval()


def results(model, golden: dict) -> dict:
    kind = golden["kind"]
    inputs = KINDS[kind].inputs(golden["config"])
    logits, loss = KINDS[kind].call(model, inputs)
    found = {"inputs": inputs, "logits": np.round(logits.double().numpy(), 6).tolist(), "loss": float(loss)}
    return found if kind not in DECODING else found | {"greedy": greedy(model, kind, inputs)}


def main() -> None:
    for family in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as temporary:
            golden, model = build(family, pathlib.Path(temporary))
            golden |= results(model, golden)
        path = FOLDER / f"{family}.json"
        path.write_text(json.dumps(golden) + "\n")
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
