"""LLaMA 1 to 3 and what is built like it: Mistral (a window), Qwen 2 (biases), Qwen 3 (norms of queries and keys)."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.family import Family, decoder_sizes, require, sizes_of_decoder
from t5x_like.models.hugging_face.rope import max_positions, rope_parameters, rotary_bindings
from t5x_like.models.hugging_face.rules import flat, keep, linear

OURS, THEIRS = "stack/layers/{}", "model.layers.{}"
ATTENTION = (
    linear(f"{OURS}/attention/query", f"{THEIRS}.self_attn.q_proj.weight"),
    linear(f"{OURS}/attention/key", f"{THEIRS}.self_attn.k_proj.weight"),
    linear(f"{OURS}/attention/value", f"{THEIRS}.self_attn.v_proj.weight"),
    linear(f"{OURS}/attention/out", f"{THEIRS}.self_attn.o_proj.weight", num_inputs=2),
)
BIASES = (
    flat(f"{OURS}/attention/query_bias", f"{THEIRS}.self_attn.q_proj.bias"),
    flat(f"{OURS}/attention/key_bias", f"{THEIRS}.self_attn.k_proj.bias"),
    flat(f"{OURS}/attention/value_bias", f"{THEIRS}.self_attn.v_proj.bias"),
)
QK_NORMS = (
    keep(f"{OURS}/attention/query_norm/scale", f"{THEIRS}.self_attn.q_norm.weight"),
    keep(f"{OURS}/attention/key_norm/scale", f"{THEIRS}.self_attn.k_norm.weight"),
)
MLP = (
    linear(f"{OURS}/mlp/gate", f"{THEIRS}.mlp.gate_proj.weight"),
    linear(f"{OURS}/mlp/up", f"{THEIRS}.mlp.up_proj.weight"),
    linear(f"{OURS}/mlp/down", f"{THEIRS}.mlp.down_proj.weight"),
)
AROUND = (
    keep("embedding/table", "model.embed_tokens.weight"),
    keep(f"{OURS}/attention_norm/before/scale", f"{THEIRS}.input_layernorm.weight"),
    keep(f"{OURS}/mlp_norm/before/scale", f"{THEIRS}.post_attention_layernorm.weight"),
    keep("stack/final_norm/scale", "model.norm.weight"),
    linear("head/kernel", "lm_head.weight"),
)
TIED = (r"lm_head\.weight", r".*rotary_emb\.inv_freq")


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "hidden_act", "silu")
    require(config, "mlp_bias", False)
    head = "@TiedHead" if config.get("tie_word_embeddings", False) else "@UntiedHead"
    told = {"Decoder.head": head, "RMSNorm.epsilon": config.get("rms_norm_eps", 1e-6)}
    return decoder_sizes(config) | rotary_bindings(config) | told


def config_of(model: nnx.Module) -> dict[str, Any]:
    attention = model.stack.layer(0).attention
    return sizes_of_decoder(model) | {
        "hidden_act": "silu",
        "rms_norm_eps": model.stack.final_norm.epsilon,
        "rope_parameters": rope_parameters(attention.rotary),
        "max_position_embeddings": max_positions(attention.rotary),
    }


def llama_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "attention_bias", False)
    return bindings(config)


def mistral_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    return bindings(config) | {"Attention.window": config.get("sliding_window")}


def mistral_config(model: nnx.Module) -> dict[str, Any]:
    return config_of(model) | {"sliding_window": model.stack.layer(0).attention.scores.window}


def qwen_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "use_sliding_window", False)
    require(config, "attention_bias", False)  # Qwen 2 says nothing of its biases, and Qwen 3 has none
    return bindings(config)


def qwen_config(model: nnx.Module) -> dict[str, Any]:
    return config_of(model) | {"use_sliding_window": False}


LLAMA = Family(
    "llama", "LlamaForCausalLM", "models/llama.gin", llama_bindings, config_of, (*AROUND, *ATTENTION, *MLP), TIED
)
MISTRAL = LLAMA._replace(
    model_type="mistral",
    architecture="MistralForCausalLM",
    include="models/mistral.gin",
    bindings=mistral_bindings,
    config=mistral_config,
)
QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    "models/qwen2.gin",
    qwen_bindings,
    qwen_config,
    (*AROUND, *ATTENTION, *BIASES, *MLP),
    TIED,
)
QWEN3 = QWEN2._replace(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    include="models/qwen3.gin",
    rules=(*AROUND, *ATTENTION, *QK_NORMS, *MLP),
)
