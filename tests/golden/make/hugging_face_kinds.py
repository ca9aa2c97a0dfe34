"""What the kinds of models in transformers are given and asked for: inputs, logits, loss. Needs torch.

Patches are cut by us, (row, column, channel) in each, so pixels are stored as [B, height, width, channel].
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

V = 53
LENGTH, ENCODER_LENGTH, PROMPT, NEW = 9, 7, 4, 5
DECODER, ENCODER, ENCODER_DECODER, DISCRIMINATOR = "decoder", "encoder", "encoder-decoder", "discriminator"
IMAGES, PAIRS, IMAGE_PREFIX = "images", "pairs", "image-prefix"
DECODING = (DECODER, ENCODER_DECODER, IMAGE_PREFIX)
Inputs = dict[str, list]


class Kind(NamedTuple):
    """inputs: config.json -> inputs; call: (model, inputs) -> (logits, loss)."""

    inputs: Callable[[Mapping[str, Any]], Inputs]
    call: Callable[[torch.nn.Module, Inputs], tuple[torch.Tensor, torch.Tensor]]


def cross_entropy(logits: torch.Tensor, targets: list) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), torch.tensor(targets).flatten())


# texts


def tokens(rng: np.random.Generator, rows: int = 2, length: int = LENGTH, top: int = V) -> list:
    return rng.integers(3, top, (rows, length)).tolist()


def text(config: Mapping[str, Any]) -> Inputs:
    rng = np.random.default_rng(0)
    inputs = {"tokens": tokens(rng), "targets": tokens(rng)}
    if config.get("type_vocab_size", 0) > 1:
        inputs["type_ids"] = [[0] * 4 + [1] * (LENGTH - 4)] * 2
    return inputs


def two_texts(config: Mapping[str, Any]) -> Inputs:
    rng = np.random.default_rng(0)
    return {"tokens": tokens(rng), "targets": tokens(rng), "encoder_tokens": tokens(rng, length=ENCODER_LENGTH)}


def replaced_text(config: Mapping[str, Any]) -> Inputs:
    inputs = text(config)
    return inputs | {"targets": np.random.default_rng(1).integers(0, 2, (2, LENGTH)).tolist()}


def decode(model, inputs: Inputs):
    logits = model(input_ids=torch.tensor(inputs["tokens"])).logits
    return logits, cross_entropy(logits, inputs["targets"])


def encode(model, inputs: Inputs) -> torch.Tensor:
    read = torch.tensor(inputs["tokens"])
    types = {"token_type_ids": torch.tensor(inputs["type_ids"])} if "type_ids" in inputs else {}
    return model(input_ids=read, attention_mask=torch.ones_like(read), **types).logits


def fill(model, inputs: Inputs):
    logits = encode(model, inputs)
    return logits, cross_entropy(logits, inputs["targets"])


def translate(model, inputs: Inputs):
    encoder, decoder = torch.tensor(inputs["encoder_tokens"]), torch.tensor(inputs["tokens"])
    logits = model(input_ids=encoder, decoder_input_ids=decoder, use_cache=False).logits
    return logits, cross_entropy(logits, inputs["targets"])


def discriminate(model, inputs: Inputs):
    logits = encode(model, inputs)
    labels = torch.tensor(inputs["targets"], dtype=logits.dtype)
    return logits, torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)


# images


def pixels(rng: np.random.Generator, config: Mapping[str, Any], rows: int) -> list:
    size = config["image_size"]
    return np.round(rng.standard_normal((rows, size, size, 3)), 3).tolist()


def channels_first(inputs: Inputs) -> torch.Tensor:
    return torch.tensor(inputs["pixels"]).permute(0, 3, 1, 2)


def images(config: Mapping[str, Any]) -> Inputs:
    rng = np.random.default_rng(0)
    return {"pixels": pixels(rng, config, 3), "targets": rng.integers(0, len(config["id2label"]), 3).tolist()}


def pairs(config: Mapping[str, Any]) -> Inputs:
    """Texts fill their rows, and end with the token at which CLIP reads them."""
    rng = np.random.default_rng(0)
    rows = [[*row[:-1], V - 1] for row in tokens(rng, rows=3, top=V - 1)]
    return {"pixels": pixels(rng, config["vision_config"], 3), "tokens": rows}


def image_prefix(config: Mapping[str, Any]) -> Inputs:
    """The first PROMPT tokens of the text are seen from everywhere; what follows them is predicted."""
    rng = np.random.default_rng(0)
    return {"pixels": pixels(rng, config["vision_config"], 2), "tokens": tokens(rng, top=V - 1)}


def classify(model, inputs: Inputs):
    logits = model(pixel_values=channels_first(inputs)).logits
    return logits, cross_entropy(logits, inputs["targets"])


def compare(model, inputs: Inputs):
    """The loss is transformers' own."""
    read = torch.tensor(inputs["tokens"])
    found = model(
        input_ids=read,
        attention_mask=torch.ones_like(read),
        pixel_values=channels_first(inputs),
        return_loss=True,
    )
    return found.logits_per_image, found.loss


def continue_image(model, inputs: Inputs):
    """The loss, transformers' own, is of the tokens behind the prompt."""
    rows = torch.tensor(inputs["tokens"])
    image = torch.full((len(rows), model.config.text_config.num_image_tokens), model.config.image_token_index)
    is_answer = torch.cat(
        [torch.zeros_like(image), torch.arange(rows.shape[1]).expand_as(rows) >= PROMPT], dim=1
    ).long()
    read = torch.cat([image, rows], dim=1)
    found = model(
        input_ids=read,
        attention_mask=torch.ones_like(read),
        token_type_ids=is_answer,
        pixel_values=channels_first(inputs),
        labels=torch.where(is_answer > 0, read, -100),
        use_cache=False,
    )
    return found.logits[:, image.shape[1] :], found.loss


KINDS = {
    DECODER: Kind(text, decode),
    ENCODER: Kind(text, fill),
    ENCODER_DECODER: Kind(two_texts, translate),
    DISCRIMINATOR: Kind(replaced_text, discriminate),
    IMAGES: Kind(images, classify),
    PAIRS: Kind(pairs, compare),
    IMAGE_PREFIX: Kind(image_prefix, continue_image),
}
KINDS = {name: kind._replace(call=torch.no_grad()(kind.call)) for name, kind in KINDS.items()}


def greedy(model, kind: str, inputs: Inputs) -> list[list[int]]:
    """The likeliest token again and again, the whole row read each time."""
    rows = [row[:PROMPT] for row in inputs["tokens"]]
    for _ in range(NEW):
        logits, _ = KINDS[kind].call(model, inputs | {"tokens": rows, "targets": rows})
        likeliest = logits[:, -1].argmax(-1).tolist()
        rows = [[*row, token] for row, token in zip(rows, likeliest, strict=True)]
    return [row[PROMPT:] for row in rows]
