"""Mixtures of experts built on LLaMA's layers: Mixtral, Qwen 3 MoE."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face import llama
from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import experts, linear

OURS = f"{llama.OURS}/mlp"


def mixtral_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    return llama.mistral_bindings(config) | {
        "MixtureOfExperts.num_experts": config["num_local_experts"],
        "SoftmaxTopK.experts_per_token": config["num_experts_per_tok"],
        "batch_balance.coefficient": config.get("router_aux_loss_coef", 0.001) * config["num_experts_per_tok"],
    }


def mixtral_config(model: nnx.Module) -> dict[str, Any]:
    mlp = model.stack.layer(0).mlp
    return llama.mistral_config(model) | {
        "num_local_experts": mlp.experts.gate.shape[-3],
        "num_experts_per_tok": mlp.router.experts_per_token,
    }


def qwen_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "decoder_sparse_step", 1)
    require(config, "mlp_only_layers", [])
    # The released files say num_experts; transformers 5 writes num_local_experts.
    num_experts = config["num_experts"] if "num_experts" in config else config["num_local_experts"]
    return llama.qwen_bindings(config) | {
        "MixtureOfExperts.num_experts": num_experts,
        "MixtureOfExperts.expert_size": config["moe_intermediate_size"],
        "SoftmaxTopK.experts_per_token": config["num_experts_per_tok"],
        "SoftmaxTopK.renormalise": config.get("norm_topk_prob", False),
    }


def qwen_config(model: nnx.Module) -> dict[str, Any]:
    mlp = model.stack.layer(0).mlp
    return llama.qwen_config(model) | {
        "num_experts": mlp.experts.gate.shape[-3],
        "moe_intermediate_size": mlp.experts.gate.shape[-1],
        "num_experts_per_tok": mlp.router.experts_per_token,
        "norm_topk_prob": mlp.router.renormalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def rules(block: str, gate: str, up: str, down: str):
    return (
        linear(f"{OURS}/router/kernel", f"{llama.THEIRS}.{block}.gate.weight"),
        experts(f"{OURS}/experts/gate", f"{llama.THEIRS}.{block}.experts.{{e}}.{gate}.weight"),
        experts(f"{OURS}/experts/up", f"{llama.THEIRS}.{block}.experts.{{e}}.{up}.weight"),
        experts(f"{OURS}/experts/down", f"{llama.THEIRS}.{block}.experts.{{e}}.{down}.weight"),
    )


MIXTRAL = Family(
    "mixtral",
    "MixtralForCausalLM",
    "models/mixtral.gin",
    mixtral_bindings,
    mixtral_config,
    (*llama.AROUND, *llama.ATTENTION, *rules("block_sparse_moe", "w1", "w3", "w2")),
    llama.TIED,
)
QWEN3_MOE = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    "models/qwen3_moe.gin",
    qwen_bindings,
    qwen_config,
    (*llama.AROUND, *llama.ATTENTION, *llama.QK_NORMS, *rules("mlp", "gate_proj", "up_proj", "down_proj")),
    llama.TIED,
)
