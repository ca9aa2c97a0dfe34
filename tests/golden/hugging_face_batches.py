"""What the stored models are given, as our models read it, and the loss that transformers computes of their logits."""

import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.features import Features
from t5x_like.losses import token_cross_entropy
from t5x_like.objectives.contrastive import softmax_contrast
from t5x_like.objectives.replaced_token import binary_cross_entropy
from t5x_like.objectives.sigmoid_contrastive import sigmoid_contrast

PROMPT = 4  # tokens of a text behind an image that are seen from everywhere


def side(tokens: list, *, is_causal: bool, targets: list | None = None, types: list | None = None) -> Features:
    tokens = jnp.asarray(tokens, jnp.int32)
    place = jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1))
    targets, types = (None if x is None else jnp.asarray(x, jnp.int32) for x in (targets, types))
    weights = None if targets is None else jnp.ones(tokens.shape, jnp.float32)
    order = place if is_causal else 0 * place
    return Features(tokens, targets, weights, jnp.ones_like(tokens), place[..., None], order, types)


def patches_of(pixels: list, width: int) -> jax.Array:
    """[B, I, width]: patches from the left to the right, then down; (row, column, channel) in each."""
    images = np.asarray(pixels, np.float32)
    B, size, _, C = images.shape
    P = round((width / C) ** 0.5)
    cut = images.reshape(B, size // P, P, size // P, P, C).transpose(0, 1, 3, 2, 4, 5)
    return jnp.asarray(cut.reshape(B, -1, width))


def batch_of(golden: dict, inputs: dict | None = None) -> Features:
    """`inputs`: others than the stored ones."""
    kind, inputs = golden["kind"], golden["inputs"] if inputs is None else inputs
    patches = None
    if "pixels" in inputs:
        vision = golden["config"].get("vision_config", golden["config"])
        patches = patches_of(inputs["pixels"], 3 * vision["patch_size"] ** 2)
    if kind == "images":
        return side([[0]] * len(patches), is_causal=False)._replace(patches=patches)
    if kind == "image-prefix":
        places = patches.shape[1]
        features = side([[0] * places + row for row in inputs["tokens"]], is_causal=True)
        seen_by_all = places + PROMPT
        order = jnp.maximum(features.attn_order - (seen_by_all - 1), 0)
        return features._replace(attn_order=order, patches=patches)
    is_causal = kind in ("decoder", "encoder-decoder") or golden["family"] == "clip"
    told = inputs.get("targets"), inputs.get("type_ids")
    features = side(inputs["tokens"], is_causal=is_causal, targets=told[0], types=told[1])
    encoder = inputs.get("encoder_tokens")
    return features._replace(encoder=encoder and side(encoder, is_causal=False), patches=patches)


def compared(golden: dict, logits: jax.Array) -> jax.Array:
    """The logits that transformers gives: behind an image those of the text."""
    return logits[:, -len(golden["inputs"]["tokens"][0]) :] if golden["kind"] == "image-prefix" else logits


def loss_of(golden: dict, logits: jax.Array) -> float:
    """`logits` as `compared` gives them."""
    kind, inputs = golden["kind"], golden["inputs"]
    if kind == "pairs":
        contrast = softmax_contrast if golden["family"] == "clip" else sigmoid_contrast
        found = contrast(logits, jnp.ones(len(logits)))
        return float(found.sum / found.weight)
    if kind == "discriminator":
        return float(binary_cross_entropy(logits, jnp.asarray(inputs["targets"], jnp.float32)).mean())
    if kind == "image-prefix":
        targets = jnp.asarray(inputs["tokens"])[:, PROMPT:]
        return float(token_cross_entropy(logits[:, PROMPT - 1 : -1], targets).mean())
    if kind == "images":
        return float(token_cross_entropy(logits[:, None], jnp.asarray(inputs["targets"])[:, None]).mean())
    return float(token_cross_entropy(logits, jnp.asarray(inputs["targets"])).mean())
