"""PaliGemma: SigLIP's image tower, a projection, and Gemma."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face import gemma
from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import flat, linear
from t5x_like.models.hugging_face.two_towers import image_tower
from t5x_like.models.hugging_face.vision import activation_of, image_sizes, sizes_of_image


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    text, image = config["text_config"], config["vision_config"]
    require(text, "model_type", "gemma")
    decoder = gemma.first_bindings({"hidden_act": gemma.GELU, **text})
    return (
        image_sizes(image, "image/")
        | {"Mlp.activation": activation_of(image, gemma.GELU), "LayerNorm.epsilon": image.get("layer_norm_eps", 1e-6)}
        | {f"text/{name}": value for name, value in decoder.items()}
    )


def config_of(model: nnx.Module) -> dict[str, Any]:
    text, image = gemma.first_config(model.text), sizes_of_image(model.image)
    width = text["hidden_size"]
    return {
        "vision_config": image
        | {"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": width},
        "text_config": text | {"model_type": "gemma", "num_image_tokens": model.image.num_patches},
        "projection_dim": width,
        "hidden_size": width,
        # Stands where the image is, and is never read; the released ones have it behind their text vocabulary.
        "image_token_index": text["vocab_size"] - 1,
    }


def of_text(names: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name in names)


PALIGEMMA = Family(
    "paligemma",
    "PaliGemmaForConditionalGeneration",
    "models/paligemma.gin",
    bindings,
    config_of,
    (
        *image_tower("vision_tower"),
        linear("projection/kernel", "multi_modal_projector.linear.weight"),
        flat("projection/bias", "multi_modal_projector.linear.bias"),
        *(
            rule._replace(ours=of_text(rule.ours, "text/"), theirs=of_text(rule.theirs, "language_model."))
            for rule in gemma.FIRST_RULES
        ),
    ),
    (r"language_model\.lm_head\.weight", r".*position_ids"),
)
