"""CLIP and SigLIP: a tower for images, one for texts, and what compares them."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.bert import dense, norm
from t5x_like.models.hugging_face.family import Family
from t5x_like.models.hugging_face.rules import Rule, flat, keep, linear, one_row, patch_kernel, stacked, stacked_biases
from t5x_like.models.hugging_face.vision import activation_of, image_sizes, sizes_of_image, their_activation


def layers(ours: str, theirs: str) -> tuple[Rule, ...]:
    ours, theirs = f"{ours}/stack/layers/{{}}", f"{theirs}.encoder.layers.{{}}"
    return (
        *dense(f"{ours}/attention/query", f"{theirs}.self_attn.q_proj"),
        *dense(f"{ours}/attention/key", f"{theirs}.self_attn.k_proj"),
        *dense(f"{ours}/attention/value", f"{theirs}.self_attn.v_proj"),
        *dense(f"{ours}/attention/out", f"{theirs}.self_attn.out_proj", num_inputs=2),
        *norm(f"{ours}/attention_norm/before", f"{theirs}.layer_norm1"),
        *dense(f"{ours}/mlp/up", f"{theirs}.mlp.fc1"),
        *dense(f"{ours}/mlp/down", f"{theirs}.mlp.fc2"),
        *norm(f"{ours}/mlp_norm/before", f"{theirs}.layer_norm2"),
    )


def image_tower(theirs: str) -> tuple[Rule, ...]:
    """With the parts of both: a rule without parameters of ours does nothing."""
    return (
        patch_kernel("image/kernel", f"{theirs}.embeddings.patch_embedding.weight"),
        flat("image/bias", f"{theirs}.embeddings.patch_embedding.bias"),
        flat("image/class_token", f"{theirs}.embeddings.class_embedding"),
        keep("image/stack/entry/positions/table", f"{theirs}.embeddings.position_embedding.weight"),
        *norm("image/stack/entry/norm", f"{theirs}.pre_layrnorm"),
        *layers("image", theirs),
        *norm("image/stack/final_norm", f"{theirs}.post_layernorm"),
    )


TEXT_TOWER = (
    keep("text/embedding/table", "text_model.embeddings.token_embedding.weight"),
    keep("text/stack/entry/positions/table", "text_model.embeddings.position_embedding.weight"),
    *layers("text", "text_model"),
    *norm("text/stack/final_norm", "text_model.final_layer_norm"),
)
POOL = "vision_model.head"
ATTENTION = [f"image_pool/attention/{name}" for name in ("query", "key", "value")]
ATTENTION_POOL = (
    one_row("image_pool/queries", f"{POOL}.probe"),
    stacked(ATTENTION, f"{POOL}.attention.in_proj_weight"),
    stacked_biases([f"{name}_bias" for name in ATTENTION], f"{POOL}.attention.in_proj_bias"),
    *dense("image_pool/attention/out", f"{POOL}.attention.out_proj", num_inputs=2),
    *norm("image_pool/norm", f"{POOL}.layernorm"),
    *dense("image_pool/mlp/up", f"{POOL}.mlp.fc1"),
    *dense("image_pool/mlp/down", f"{POOL}.mlp.fc2"),
)
CONSTANTS = (r".*position_ids",)


def sizes(config: Mapping[str, Any], *, activation: str, epsilon: float) -> dict[str, Any]:
    """Of both towers; the two last are what transformers takes where config.json is silent."""
    text, image = config["text_config"], config["vision_config"]
    return image_sizes(image, "image/") | {
        "image/Mlp.activation": activation_of(image, activation),
        "image/LayerNorm.epsilon": image.get("layer_norm_eps", epsilon),
        "text/Encoder.vocab_size": text["vocab_size"],
        "text/Encoder.num_layers": text["num_hidden_layers"],
        "text/Encoder.d_model": text["hidden_size"],
        "text/Encoder.num_heads": text["num_attention_heads"],
        "text/Encoder.d_ff": text["intermediate_size"],
        "text/LearnedPositions.max_length": text["max_position_embeddings"],
        "text/Mlp.activation": activation_of(text, activation),
        "text/LayerNorm.epsilon": text.get("layer_norm_eps", epsilon),
    }


def clip_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    told = sizes(config, activation="quick_gelu", epsilon=1e-5)
    return told | {"TwoTowers.width": config["projection_dim"]}


def siglip_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    told = sizes(config, activation="gelu_pytorch_tanh", epsilon=1e-6)
    image, text = config["vision_config"]["hidden_size"], config["text_config"]
    width = text.get("projection_size", text["hidden_size"])
    if width != image:
        raise ValueError(f"config.json compares texts of width {width} with images of width {image}: they must be one")
    return told | {"TwoTowers.width": width}


def sizes_of(model: nnx.Module) -> dict[str, Any]:
    text = model.text
    return {
        "vision_config": sizes_of_image(model.image),
        "text_config": {
            "vocab_size": text.vocab_size,
            "num_hidden_layers": text.stack.kinds.num_layers,
            "hidden_size": text.sizes.d_model,
            "num_attention_heads": text.sizes.num_heads,
            "intermediate_size": text.sizes.d_ff,
            "max_position_embeddings": text.stack.entry.positions.table.shape[0],
            "layer_norm_eps": text.stack.final_norm.epsilon,
            "hidden_act": their_activation(text.stack.layer(0).mlp),
        },
    }


def clip_config(model: nnx.Module) -> dict[str, Any]:
    """transformers reads a text at its first `eos_token_id`, we at its last token that is no padding."""
    told = sizes_of(model)
    told["text_config"] |= {"eos_token_id": model.text.vocab_size - 1}
    return told | {"projection_dim": model.text_projection.kernel.shape[1]}


def siglip_config(model: nnx.Module) -> dict[str, Any]:
    told = sizes_of(model)
    told["text_config"] |= {"projection_size": model.text_projection.kernel.shape[1]}
    return told


CLIP = Family(
    "clip",
    "CLIPModel",
    "models/clip.gin",
    clip_bindings,
    clip_config,
    (
        *image_tower("vision_model"),
        *TEXT_TOWER,
        linear("image_projection/kernel", "visual_projection.weight"),
        linear("text_projection/kernel", "text_projection.weight"),
        keep("contrast/log_scale", "logit_scale"),
    ),
    CONSTANTS,
)
SIGLIP = Family(
    "siglip",
    "SiglipModel",
    "models/siglip.gin",
    siglip_bindings,
    siglip_config,
    (
        *image_tower("vision_model"),
        *ATTENTION_POOL,
        *TEXT_TOWER,
        linear("text_projection/kernel", "text_model.head.weight"),
        flat("text_projection/bias", "text_model.head.bias"),
        flat("contrast/log_scale", "logit_scale"),
        flat("contrast/bias", "logit_bias"),
    ),
    CONSTANTS,
)
