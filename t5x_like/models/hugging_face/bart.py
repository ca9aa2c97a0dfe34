"""BART (norms after each part); mBART has them before each part, and one more behind each stack."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.bert import dense, norm
from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import Rule, after_rows, keep


def side(name: str, residual: str) -> tuple[Rule, ...]:
    ours, theirs = f"{name}/layers/{{}}", f"model.{name}.layers.{{}}"
    return (
        after_rows(f"{name}/entry/positions/table", f"model.{name}.embed_positions.weight", unused=2),
        *norm(f"{name}/entry/norm", f"model.{name}.layernorm_embedding"),
        *attention(f"{ours}/attention", f"{theirs}.self_attn"),
        *norm(f"{ours}/attention_norm/{residual}", f"{theirs}.self_attn_layer_norm"),
        *dense(f"{ours}/mlp/up", f"{theirs}.fc1"),
        *dense(f"{ours}/mlp/down", f"{theirs}.fc2"),
        *norm(f"{ours}/mlp_norm/{residual}", f"{theirs}.final_layer_norm"),
        *norm(f"{name}/final_norm", f"model.{name}.layer_norm"),
    )


def attention(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        *dense(f"{ours}/query", f"{theirs}.q_proj"),
        *dense(f"{ours}/key", f"{theirs}.k_proj"),
        *dense(f"{ours}/value", f"{theirs}.v_proj"),
        *dense(f"{ours}/out", f"{theirs}.out_proj", num_inputs=2),
    )


def rules(residual: str) -> tuple[Rule, ...]:
    ours, theirs = "decoder/layers/{}/cross_attention", "model.decoder.layers.{}.encoder_attn"
    return (
        keep("embedding/table", "model.shared.weight"),
        *side("encoder", residual),
        *side("decoder", residual),
        *attention(ours, theirs),
        *norm(f"{ours}_norm/{residual}", f"{theirs}_layer_norm"),
        Rule(
            ("head/bias",),
            ("final_logits_bias",),
            lambda arrays, shapes: [arrays[0][0]],
            lambda arrays: [arrays[0][None]],
        ),
    )


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "activation_function", "gelu")
    require(config, "tie_word_embeddings", True)
    for key in ("encoder_attention_heads", "encoder_ffn_dim"):
        require(config, key, config[key.replace("encoder", "decoder")])
    return {
        "EncoderDecoder.vocab_size": config["vocab_size"],
        "EncoderDecoder.num_encoder_layers": config["encoder_layers"],
        "EncoderDecoder.num_decoder_layers": config["decoder_layers"],
        "EncoderDecoder.d_model": config["d_model"],
        "EncoderDecoder.num_heads": config["encoder_attention_heads"],
        "EncoderDecoder.d_ff": config["encoder_ffn_dim"],
        "EncoderDecoder.embedding": "@Embedding",
        "Embedding.scale_power": 0.5 if config.get("scale_embedding", False) else 0.0,
        "LearnedPositions.max_length": config["max_position_embeddings"],
    }


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes = model.encoder.sizes
    return {
        "vocab_size": model.vocab_size,
        "encoder_layers": model.encoder.kinds.num_layers,
        "decoder_layers": model.decoder.kinds.num_layers,
        "d_model": sizes.d_model,
        "encoder_attention_heads": sizes.num_heads,
        "decoder_attention_heads": sizes.num_heads,
        "encoder_ffn_dim": sizes.d_ff,
        "decoder_ffn_dim": sizes.d_ff,
        "scale_embedding": model.embedding.scale != 1.0,
        "max_position_embeddings": model.encoder.entry.positions.table.shape[0],
        "activation_function": "gelu",
        "tie_word_embeddings": True,
    }


TIED = (r"lm_head\.weight", r"model\.(en|de)coder\.embed_tokens\.weight")
BART = Family("bart", "BartForConditionalGeneration", "models/bart.gin", bindings, config_of, rules("after"), TIED)
MBART = Family(
    "mbart",
    "MBartForConditionalGeneration",
    "models/mbart.gin",
    bindings,
    config_of,
    rules("before"),
    TIED,
)
