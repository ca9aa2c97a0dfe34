"""GPT-2: learned positions, one matrix for query, key and value, inputs first everywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import Rule, flat, keep, matrix, plain

OURS, THEIRS = "stack/layers/{}", "transformer.h.{}"
ATTENTION = tuple(f"{OURS}/attention/{name}" for name in ("query", "key", "value"))


def split(arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    return [part.reshape(shape) for part, shape in zip(np.split(arrays[0], 3, axis=-1), shapes, strict=True)]


def joined(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([matrix(array, 1) for array in arrays], axis=1)]


RULES = (
    keep("embedding/table", "transformer.wte.weight"),
    keep("stack/entry/positions/table", "transformer.wpe.weight"),
    keep(f"{OURS}/attention_norm/before/scale", f"{THEIRS}.ln_1.weight"),
    keep(f"{OURS}/attention_norm/before/bias", f"{THEIRS}.ln_1.bias"),
    Rule(ATTENTION, (f"{THEIRS}.attn.c_attn.weight",), split, joined),
    Rule(
        tuple(f"{name}_bias" for name in ATTENTION),
        (f"{THEIRS}.attn.c_attn.bias",),
        split,
        lambda arrays: [np.concatenate([array.reshape(-1) for array in arrays])],
    ),
    plain(f"{OURS}/attention/out", f"{THEIRS}.attn.c_proj.weight", num_inputs=2),
    flat(f"{OURS}/attention/out_bias", f"{THEIRS}.attn.c_proj.bias"),
    keep(f"{OURS}/mlp_norm/before/scale", f"{THEIRS}.ln_2.weight"),
    keep(f"{OURS}/mlp_norm/before/bias", f"{THEIRS}.ln_2.bias"),
    plain(f"{OURS}/mlp/up", f"{THEIRS}.mlp.c_fc.weight"),
    flat(f"{OURS}/mlp/up_bias", f"{THEIRS}.mlp.c_fc.bias"),
    plain(f"{OURS}/mlp/down", f"{THEIRS}.mlp.c_proj.weight"),
    flat(f"{OURS}/mlp/down_bias", f"{THEIRS}.mlp.c_proj.bias"),
    keep("stack/final_norm/scale", "transformer.ln_f.weight"),
    keep("stack/final_norm/bias", "transformer.ln_f.bias"),
)


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "activation_function", "gelu_new")
    require(config, "scale_attn_by_inverse_layer_idx", False)
    require(config, "tie_word_embeddings", True)
    return {
        "Decoder.vocab_size": config["vocab_size"],
        "Decoder.num_layers": config["n_layer"],
        "Decoder.d_model": config["n_embd"],
        "Decoder.num_heads": config["n_head"],
        "Decoder.d_ff": config.get("n_inner") or 4 * config["n_embd"],
        "LearnedPositions.max_length": config["n_positions"],
        "LayerNorm.epsilon": config.get("layer_norm_epsilon", 1e-5),
    }


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes = model.stack.sizes
    return {
        "vocab_size": model.vocab_size,
        "n_layer": model.stack.kinds.num_layers,
        "n_embd": sizes.d_model,
        "n_head": sizes.num_heads,
        "n_inner": sizes.d_ff,
        "n_positions": model.stack.entry.positions.table.shape[0],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.stack.final_norm.epsilon,
        "tie_word_embeddings": True,
    }


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    "models/gpt2.gin",
    bindings,
    config_of,
    RULES,
    (r"lm_head\.weight", r".*\.attn\.(masked_)?bias"),
)
