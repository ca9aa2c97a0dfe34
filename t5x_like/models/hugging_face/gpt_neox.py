"""GPT-NeoX and Pythia: attention and MLP in parallel, a part of each head turned."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.family import Family, decoder_sizes, require, sizes_of_decoder
from t5x_like.models.hugging_face.rope import rope_of
from t5x_like.models.hugging_face.rules import by_head, flat, keep, linear

OURS, THEIRS = "stack/layers/{}", "gpt_neox.layers.{}"
RULES = (
    keep("embedding/table", "gpt_neox.embed_in.weight"),
    keep(f"{OURS}/attention_norm/scale", f"{THEIRS}.input_layernorm.weight"),
    keep(f"{OURS}/attention_norm/bias", f"{THEIRS}.input_layernorm.bias"),
    keep(f"{OURS}/mlp_norm/scale", f"{THEIRS}.post_attention_layernorm.weight"),
    keep(f"{OURS}/mlp_norm/bias", f"{THEIRS}.post_attention_layernorm.bias"),
    by_head(f"{OURS}/attention", f"{THEIRS}.attention.query_key_value.weight"),
    by_head(f"{OURS}/attention", f"{THEIRS}.attention.query_key_value.bias", bias=True),
    linear(f"{OURS}/attention/out", f"{THEIRS}.attention.dense.weight", num_inputs=2),
    flat(f"{OURS}/attention/out_bias", f"{THEIRS}.attention.dense.bias"),
    linear(f"{OURS}/mlp/up", f"{THEIRS}.mlp.dense_h_to_4h.weight"),
    flat(f"{OURS}/mlp/up_bias", f"{THEIRS}.mlp.dense_h_to_4h.bias"),
    linear(f"{OURS}/mlp/down", f"{THEIRS}.mlp.dense_4h_to_h.weight"),
    flat(f"{OURS}/mlp/down_bias", f"{THEIRS}.mlp.dense_4h_to_h.bias"),
    keep("stack/final_norm/scale", "gpt_neox.final_layer_norm.weight"),
    keep("stack/final_norm/bias", "gpt_neox.final_layer_norm.bias"),
    linear("head/kernel", "embed_out.weight"),
)


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "hidden_act", "gelu")
    require(config, "use_parallel_residual", True)
    require(config, "attention_bias", True)
    require(config, "tie_word_embeddings", False)
    rope = rope_of(config)
    require(rope, "rope_type", "default")
    return decoder_sizes(config) | {
        "Rotary.wavelength": float(rope.get("rope_theta") or config.get("rotary_emb_base", 10_000)),
        "Rotary.share": rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25)),
        "LayerNorm.epsilon": config.get("layer_norm_eps", 1e-5),
    }


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes = sizes_of_decoder(model)
    rotary = model.stack.layer(0).attention.rotary
    del sizes["num_key_value_heads"], sizes["head_dim"]
    return sizes | {
        "hidden_act": "gelu",
        "rotary_pct": rotary.share,
        "rope_parameters": {
            "rope_theta": rotary.wavelength,
            "rope_type": "default",
            "partial_rotary_factor": rotary.share,
        },
        "layer_norm_eps": model.stack.final_norm.epsilon,
        "use_parallel_residual": True,
        "max_position_embeddings": 2048,
    }


GPT_NEOX = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    "models/pythia.gin",
    bindings,
    config_of,
    RULES,
    (r".*\.attention\.(masked_)?bias", r".*rotary_emb\.inv_freq"),
)
