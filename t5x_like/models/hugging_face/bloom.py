"""BLOOM: ALiBi, a norm behind the embedding."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import by_head, flat, keep, linear

OURS, THEIRS = "stack/layers/{}", "transformer.h.{}"
RULES = (
    keep("embedding/table", "transformer.word_embeddings.weight"),
    keep("stack/entry/norm/scale", "transformer.word_embeddings_layernorm.weight"),
    keep("stack/entry/norm/bias", "transformer.word_embeddings_layernorm.bias"),
    keep(f"{OURS}/attention_norm/before/scale", f"{THEIRS}.input_layernorm.weight"),
    keep(f"{OURS}/attention_norm/before/bias", f"{THEIRS}.input_layernorm.bias"),
    by_head(f"{OURS}/attention", f"{THEIRS}.self_attention.query_key_value.weight"),
    by_head(f"{OURS}/attention", f"{THEIRS}.self_attention.query_key_value.bias", bias=True),
    linear(f"{OURS}/attention/out", f"{THEIRS}.self_attention.dense.weight", num_inputs=2),
    flat(f"{OURS}/attention/out_bias", f"{THEIRS}.self_attention.dense.bias"),
    keep(f"{OURS}/mlp_norm/before/scale", f"{THEIRS}.post_attention_layernorm.weight"),
    keep(f"{OURS}/mlp_norm/before/bias", f"{THEIRS}.post_attention_layernorm.bias"),
    linear(f"{OURS}/mlp/up", f"{THEIRS}.mlp.dense_h_to_4h.weight"),
    flat(f"{OURS}/mlp/up_bias", f"{THEIRS}.mlp.dense_h_to_4h.bias"),
    linear(f"{OURS}/mlp/down", f"{THEIRS}.mlp.dense_4h_to_h.weight"),
    flat(f"{OURS}/mlp/down_bias", f"{THEIRS}.mlp.dense_4h_to_h.bias"),
    keep("stack/final_norm/scale", "transformer.ln_f.weight"),
    keep("stack/final_norm/bias", "transformer.ln_f.bias"),
)


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "apply_residual_connection_post_layernorm", False)
    require(config, "tie_word_embeddings", True)
    width = config.get("hidden_size") or config["n_embed"]
    return {
        "Decoder.vocab_size": config["vocab_size"],
        "Decoder.num_layers": config["n_layer"],
        "Decoder.d_model": width,
        "Decoder.num_heads": config["n_head"],
        "Decoder.d_ff": 4 * width,
        "LayerNorm.epsilon": config.get("layer_norm_epsilon", 1e-5),
    }


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes = model.stack.sizes
    if sizes.d_ff != 4 * sizes.d_model:
        raise ValueError(f"d_ff {sizes.d_ff} is not 4 times d_model {sizes.d_model}: BLOOM's config.json has no other")
    return {
        "vocab_size": model.vocab_size,
        "n_layer": model.stack.kinds.num_layers,
        "hidden_size": sizes.d_model,
        "n_head": sizes.num_heads,
        "layer_norm_epsilon": model.stack.final_norm.epsilon,
        "tie_word_embeddings": True,
    }


BLOOM = Family("bloom", "BloomForCausalLM", "models/bloom.gin", bindings, config_of, RULES, (r"lm_head\.weight",))
