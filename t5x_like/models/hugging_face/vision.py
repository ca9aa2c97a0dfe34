"""ViT with its classifier, and what the towers of CLIP and SigLIP have in common with it."""

import math
from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.bert import dense, norm
from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import flat, linear, one_row, patch_kernel
from t5x_like.models.layers import name_of_activation

ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}  # theirs -> ours
CHANNELS = 3


def activation_of(config: Mapping[str, Any], default: str) -> str:
    name = config.get("hidden_act", default)
    if name not in ACTIVATIONS:
        raise ValueError(f"config.json says hidden_act {name!r}; {', '.join(ACTIVATIONS)} can be imported")
    return ACTIVATIONS[name]


def their_activation(mlp: nnx.Module) -> str:
    ours = name_of_activation(mlp.activation)
    for theirs, name in ACTIVATIONS.items():
        if name == ours:
            return theirs
    raise ValueError(
        f"activation {ours!r} has no name in a config.json of images; use {', '.join(ACTIVATIONS.values())}"
    )


def image_sizes(config: Mapping[str, Any], scope: str = "") -> dict[str, Any]:
    """What a vision_config, or a ViT's own config.json, says of a VisionEncoder."""
    require(config, "num_channels", CHANNELS)
    patch, size = config["patch_size"], config["image_size"]
    if size % patch:
        raise ValueError(f"config.json says image_size {size}, which is no multiple of patch_size {patch}")
    return {
        f"{scope}VisionEncoder.patch_width": patch * patch * CHANNELS,
        f"{scope}VisionEncoder.num_patches": (size // patch) ** 2,
        f"{scope}VisionEncoder.num_layers": config["num_hidden_layers"],
        f"{scope}VisionEncoder.d_model": config["hidden_size"],
        f"{scope}VisionEncoder.num_heads": config["num_attention_heads"],
        f"{scope}VisionEncoder.d_ff": config["intermediate_size"],
    }


def sizes_of_image(image: nnx.Module) -> dict[str, Any]:
    """The inverse of `image_sizes`."""
    patch = math.isqrt(image.kernel.shape[0] // CHANNELS)
    return {
        "num_channels": CHANNELS,
        "patch_size": patch,
        "image_size": patch * math.isqrt(image.num_patches),
        "num_hidden_layers": image.stack.kinds.num_layers,
        "hidden_size": image.sizes.d_model,
        "num_attention_heads": image.sizes.num_heads,
        "intermediate_size": image.sizes.d_ff,
        "layer_norm_eps": image.stack.final_norm.epsilon,
        "hidden_act": their_activation(image.stack.layer(0).mlp),
    }


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "qkv_bias", True)
    return image_sizes(config) | {
        "ImageClassifier.num_classes": len(config.get("id2label", {0: "", 1: ""})),
        "LayerNorm.epsilon": config.get("layer_norm_eps", 1e-12),
        "Mlp.activation": activation_of(config, "gelu"),
    }


def config_of(model: nnx.Module) -> dict[str, Any]:
    names = {str(number): f"LABEL_{number}" for number in range(model.kernel.shape[1])}
    return sizes_of_image(model.image) | {
        "qkv_bias": True,
        "id2label": names,
        "label2id": {v: int(k) for k, v in names.items()},
    }


OURS, THEIRS = "image/stack/layers/{}", "vit.encoder.layer.{}"
RULES = (
    patch_kernel("image/kernel", "vit.embeddings.patch_embeddings.projection.weight"),
    flat("image/bias", "vit.embeddings.patch_embeddings.projection.bias"),
    one_row("image/class_token", "vit.embeddings.cls_token"),
    one_row("image/stack/entry/positions/table", "vit.embeddings.position_embeddings"),
    *dense(f"{OURS}/attention/query", f"{THEIRS}.attention.attention.query"),
    *dense(f"{OURS}/attention/key", f"{THEIRS}.attention.attention.key"),
    *dense(f"{OURS}/attention/value", f"{THEIRS}.attention.attention.value"),
    *dense(f"{OURS}/attention/out", f"{THEIRS}.attention.output.dense", num_inputs=2),
    *dense(f"{OURS}/mlp/up", f"{THEIRS}.intermediate.dense"),
    *dense(f"{OURS}/mlp/down", f"{THEIRS}.output.dense"),
    *norm(f"{OURS}/attention_norm/before", f"{THEIRS}.layernorm_before"),
    *norm(f"{OURS}/mlp_norm/before", f"{THEIRS}.layernorm_after"),
    *norm("image/stack/final_norm", "vit.layernorm"),
    linear("kernel", "classifier.weight"),
    flat("bias", "classifier.bias"),
)
VIT = Family("vit", "ViTForImageClassification", "models/vit.gin", bindings, config_of, RULES)
