"""ModernBERT: rotary positions, local and global layers, no biases, no norm before the first attention."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import keep, linear, stacked

OURS, THEIRS = "stack/layers/{}", "model.layers.{}"
RULES = (
    keep("embedding/table", "model.embeddings.tok_embeddings.weight"),
    keep("stack/entry/norm/scale", "model.embeddings.norm.weight"),
    stacked([f"{OURS}/attention/{name}" for name in ("query", "key", "value")], f"{THEIRS}.attn.Wqkv.weight"),
    linear(f"{OURS}/attention/out", f"{THEIRS}.attn.Wo.weight", num_inputs=2),
    keep(f"{OURS}/attention_norm/before/scale", f"{THEIRS}.attn_norm.weight"),
    stacked([f"{OURS}/mlp/gate", f"{OURS}/mlp/up"], f"{THEIRS}.mlp.Wi.weight"),
    linear(f"{OURS}/mlp/down", f"{THEIRS}.mlp.Wo.weight"),
    keep(f"{OURS}/mlp_norm/before/scale", f"{THEIRS}.mlp_norm.weight"),
    keep("stack/final_norm/scale", "model.final_norm.weight"),
    linear("head/dense", "head.dense.weight"),
    keep("head/norm/scale", "head.norm.weight"),
    keep("head/bias", "decoder.bias"),
)


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"):
        require(config, key, False)
    require(config, "hidden_activation", "gelu")
    require(config, "global_attn_every_n_layers", 3)
    rope = config.get("rope_parameters") or {}
    far = rope.get("full_attention", {}).get("rope_theta", config.get("global_rope_theta", 160_000.0))
    near = rope.get("sliding_attention", {}).get("rope_theta", config.get("local_rope_theta", 10_000.0))
    return {
        "Encoder.vocab_size": config["vocab_size"],
        "Encoder.num_layers": config["num_hidden_layers"],
        "Encoder.d_model": config["hidden_size"],
        "Encoder.num_heads": config["num_attention_heads"],
        "Encoder.d_ff": config["intermediate_size"],
        "LayerNorm.epsilon": config.get("norm_eps", 1e-5),
        "local/Attention.window": config.get("local_attention", 128) // 2 + 1,
        "Rotary.wavelength": float(far),
        "local/Rotary.wavelength": float(near),
    }


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes, stack = model.sizes, model.stack
    near = stack.layer(1).attention
    return {
        "vocab_size": model.vocab_size,
        "num_hidden_layers": stack.kinds.num_layers,
        "hidden_size": sizes.d_model,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.d_ff,
        "norm_eps": stack.final_norm.epsilon,
        "local_attention": 2 * (near.scores.window - 1),
        "global_attn_every_n_layers": 3,
        "rope_parameters": {
            "full_attention": {"rope_theta": stack.layer(0).attention.rotary.wavelength, "rope_type": "default"},
            "sliding_attention": {"rope_theta": near.rotary.wavelength, "rope_type": "default"},
        },
        "hidden_activation": "gelu",
        "tie_word_embeddings": True,
        "pad_token_id": None,  # transformers' default is an id of the released vocabulary
    }


MODERNBERT = Family(
    "modernbert",
    "ModernBertForMaskedLM",
    "models/modernbert.gin",
    bindings,
    config_of,
    RULES,
    (r"decoder\.weight", r".*inv_freq"),
)
