"""Gemma: scales that are 1 + w; Gemma 2 and 3 also: norms on both sides, local and global layers in turn."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face import llama
from t5x_like.models.hugging_face.family import Family, decoder_sizes, require, sizes_of_decoder
from t5x_like.models.hugging_face.rope import rope_of, rope_parameters, rotary_bindings
from t5x_like.models.hugging_face.rules import from_zero, keep

OURS, THEIRS = llama.OURS, llama.THEIRS
GELU = "gelu_pytorch_tanh"
LOCAL, GLOBAL = "sliding_attention", "full_attention"
FIRST_RULES = (
    keep("embedding/table", "model.embed_tokens.weight"),
    from_zero(f"{OURS}/attention_norm/before/scale", f"{THEIRS}.input_layernorm.weight"),
    from_zero(f"{OURS}/mlp_norm/before/scale", f"{THEIRS}.post_attention_layernorm.weight"),
    from_zero("stack/final_norm/scale", "model.norm.weight"),
    *llama.ATTENTION,
    *llama.MLP,
)
RULES = (
    keep("embedding/table", "model.embed_tokens.weight"),
    from_zero(f"{OURS}/attention_norm/before/scale", f"{THEIRS}.input_layernorm.weight"),
    from_zero(f"{OURS}/attention_norm/after/scale", f"{THEIRS}.post_attention_layernorm.weight"),
    from_zero(f"{OURS}/mlp_norm/before/scale", f"{THEIRS}.pre_feedforward_layernorm.weight"),
    from_zero(f"{OURS}/mlp_norm/after/scale", f"{THEIRS}.post_feedforward_layernorm.weight"),
    from_zero("stack/final_norm/scale", "model.norm.weight"),
    *llama.ATTENTION,
    *llama.MLP,
)
QK_NORMS = (
    from_zero(f"{OURS}/attention/query_norm/scale", f"{THEIRS}.self_attn.q_norm.weight"),
    from_zero(f"{OURS}/attention/key_norm/scale", f"{THEIRS}.self_attn.k_norm.weight"),
)


def first_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    # "gelu" in the first files meant the approximation by tanh too, which transformers says in `hidden_activation`.
    require({"hidden_act": config.get("hidden_activation") or config.get("hidden_act")}, "hidden_act", GELU)
    require(config, "attention_bias", False)
    return decoder_sizes(config) | rotary_bindings(config) | {"RMSNorm.epsilon": config.get("rms_norm_eps", 1e-6)}


def first_config(model: nnx.Module) -> dict[str, Any]:
    return sizes_of_decoder(model) | {
        "hidden_act": GELU,
        "rms_norm_eps": model.stack.final_norm.epsilon,
        "rope_parameters": rope_parameters(model.stack.layer(0).attention.rotary),
    }


def bindings(config: Mapping[str, Any], num_local: int) -> dict[str, Any]:
    """Of both; a cycle is `num_local` local layers and a global one."""
    require(config, "hidden_activation", GELU)
    require(config, "attention_bias", False)
    cycle = [*[LOCAL] * num_local, GLOBAL]
    num_layers = config["num_hidden_layers"]
    require(config, "layer_types", [cycle[i % len(cycle)] for i in range(num_layers)])
    return decoder_sizes(config) | {
        "RMSNorm.epsilon": config.get("rms_norm_eps", 1e-6),
        "Attention.logit_scale": config["query_pre_attn_scalar"] ** -0.5,
        "local/Attention.window": config["sliding_window"],
    }


def gemma2_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require({"rope_type": rope_of(config)["rope_type"]}, "rope_type", "default")
    return bindings(config, 1) | {
        "Rotary.wavelength": float(rope_of(config)["rope_theta"]),
        "Attention.softcap": config["attn_logit_softcapping"],
        "CappedTiedHead.softcap": config["final_logit_softcapping"],
    }


def gemma3_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "attn_logit_softcapping", None)
    require(config, "final_logit_softcapping", None)
    rope = config.get("rope_parameters") or {}
    near = rope.get(LOCAL) or {"rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    far = rope.get(GLOBAL) or rope_of(config)
    for side in (near, far):
        require(side, "rope_type", "default")
    return bindings(config, 5) | {
        "local/Rotary.wavelength": float(near["rope_theta"]),
        "Rotary.wavelength": float(far["rope_theta"]),
    }


def config_of(model: nnx.Module, num_local: int) -> dict[str, Any]:
    first, num_layers = model.stack.layer(0).attention, model.stack.kinds.num_layers
    cycle = [*[LOCAL] * num_local, GLOBAL]
    return sizes_of_decoder(model) | {
        "hidden_activation": GELU,
        "rms_norm_eps": model.stack.final_norm.epsilon,
        "query_pre_attn_scalar": round(first.logit_scale**-2),
        "sliding_window": first.scores.window,
        "layer_types": [cycle[i % len(cycle)] for i in range(num_layers)],
    }


def gemma2_config(model: nnx.Module) -> dict[str, Any]:
    first = model.stack.layer(0).attention
    return config_of(model, 1) | {
        "rope_parameters": {"rope_theta": first.rotary.wavelength, "rope_type": "default"},
        "attn_logit_softcapping": first.scores.softcap,
        "final_logit_softcapping": model.head.softcap,
    }


def gemma3_config(model: nnx.Module) -> dict[str, Any]:
    stack = model.stack
    sides = {LOCAL: stack.layer(0), GLOBAL: stack.layer(min(5, stack.kinds.num_layers - 1))}
    return config_of(model, 5) | {
        "rope_parameters": {
            name: {"rope_theta": layer.attention.rotary.wavelength, "rope_type": "default"}
            for name, layer in sides.items()
        }
    }


GEMMA = Family("gemma", "GemmaForCausalLM", "models/gemma.gin", first_bindings, first_config, FIRST_RULES, llama.TIED)
GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", "models/gemma2.gin", gemma2_bindings, gemma2_config, RULES, llama.TIED)
GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    "models/gemma3.gin",
    gemma3_bindings,
    gemma3_config,
    (*RULES, *QK_NORMS),
    llama.TIED,
)
