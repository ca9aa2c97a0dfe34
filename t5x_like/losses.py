"""Losses as (sum, weight): the step divides once, after adding up micro-batches and hosts.

A loss is an object: `loss(model, batch, dropout_key)` gives the terms whose means are added up and minimised, one of
them named "loss"; `loss.measure(model, batch)` gives what is reported of held-out text, without dropout. Where a method
has no more than cross-entropy it is one of the two classes here; otherwise it stands in the file of its objective.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like import device_parts
from t5x_like.features import Features


class Term(NamedTuple):
    """One term of a loss or one metric: its value is sum / weight over the whole global batch."""

    sum: jax.Array
    weight: jax.Array


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Next-token cross-entropy of a model, as T5X counts it, and the terms of the model's own layers.

    z_loss          adds z_loss * log(Z)^2 per token (T5X: 1e-4; PaLM, arXiv:2204.02311, section 5)
    label_smoothing probability spread evenly over the wrong tokens
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        check_settings(self.z_loss, self.label_smoothing)

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        x_BLD, terms = model.hidden(batch, dropout_key=dropout_key)
        loss_BL = token_cross_entropy(
            model.logits(x_BLD), batch.targets, z_loss=self.z_loss, label_smoothing=self.label_smoothing
        )
        return {"loss": weighted(loss_BL, batch.loss_weights), **terms}

    def measure(self, model, batch: Features) -> dict[str, Term]:
        return token_metrics(model, batch)


@dataclasses.dataclass(frozen=True)
class ChunkedCrossEntropy:
    """`CrossEntropy` that never holds the logits of the whole batch: for large vocabularies and long rows.

    The same numbers as there; logits are made again in the backward pass, which costs a third more in the head.

    chunk_size   places of every row whose logits exist at a time
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0
    chunk_size: int = 128

    def __post_init__(self):
        check_settings(self.z_loss, self.label_smoothing)
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size {self.chunk_size} must be at least 1; 128 is the default")

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        x_BLD, terms = model.hidden(batch, dropout_key=dropout_key)

        def loss(model, x_BLD, targets_BL):
            logits_BLV = model.logits(x_BLD)
            return token_cross_entropy(logits_BLV, targets_BL, z_loss=self.z_loss, label_smoothing=self.label_smoothing)

        loss_BL = by_chunks(loss, model, x_BLD, batch.targets, chunk_size=self.chunk_size)
        return {"loss": weighted(loss_BL, batch.loss_weights), **terms}

    def measure(self, model, batch: Features) -> dict[str, Term]:
        return token_metrics(model, batch)


def check_settings(z_loss: float, label_smoothing: float) -> None:
    if z_loss < 0:
        raise ValueError(f"z_loss {z_loss} is negative; 0 turns it off")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing {label_smoothing} is not in [0, 1); 0 turns it off")


def token_metrics(model, batch: Features) -> dict[str, Term]:
    """What is reported of held-out text: "loss" in nats per target without z-loss or smoothing, and "accuracy"."""

    def measure(model, x_BLD, targets_BL):
        logits_BLV = model.logits(x_BLD)
        right_BL = (jnp.argmax(logits_BLV, axis=-1) == targets_BL).astype(jnp.float32)
        return token_cross_entropy(logits_BLV, targets_BL), right_BL

    loss_BL, right_BL = by_chunks(measure, model, model.hidden(batch).x_BLD, batch.targets, chunk_size=128)
    return {"loss": weighted(loss_BL, batch.loss_weights), "accuracy": weighted(right_BL, batch.loss_weights)}


def by_chunks(of_places: Callable[..., Any], model, x_BLD: jax.Array, targets_BL: jax.Array, *, chunk_size: int) -> Any:
    """of_places(model, x_BLD, targets_BL) -> arrays [B, L], made of `chunk_size` places of every row at a time.

    What it makes in between is made again for the gradient. Only the length is cut, so that on a mesh every chunk lies
    as the whole batch does: rows over data, vocabulary over tensor. Gradients of parameters add up in their own type.
    """
    return device_parts.on_own_places(
        functools.partial(chunk_by_chunk, of_places, chunk_size), model, x_BLD, targets_BL
    )


def chunk_by_chunk(of_places: Callable[..., Any], chunk_size: int, model, x_BLD: jax.Array, targets_BL: jax.Array):
    B, L = targets_BL.shape
    num_chunks = -(-L // chunk_size)
    if num_chunks == 1:
        return of_places(model, x_BLD, targets_BL)
    size = -(-L // num_chunks)  # chunks of one size, filled up with places whose results are cut off
    more = num_chunks * size - L
    x_BLD, targets_BL = jnp.pad(x_BLD, ((0, 0), (0, more), (0, 0))), jnp.pad(targets_BL, ((0, 0), (0, more)))

    def step(_, x_and_targets):
        return None, of_places(model, *x_and_targets)

    chunks = (jnp.moveaxis(x.reshape(B, num_chunks, size, *x.shape[2:]), 1, 0) for x in (x_BLD, targets_BL))
    _, found = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), None, tuple(chunks))
    return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1).reshape(B, -1)[:, :L], found)


def weighted(value_BL: jax.Array, weights_BL: jax.Array) -> Term:
    """Places of weight 0 count for nothing, even where their value is not a number."""
    return Term(jnp.where(weights_BL > 0, value_BL * weights_BL, 0.0).sum(), weights_BL.sum())


def token_cross_entropy(
    logits: Float[Array, "B L V"],
    targets: Int[Array, "B L"],
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Float[Array, "B L"]:
    """-log p(target) in nats per token, in float32, equal to T5X's to the last constant.

    With label smoothing the entropy of the smoothed target is taken off, so that a perfect model has loss 0.
    """
    return cross_entropy_of(vocabulary_sums(logits, targets), logits.shape[-1], z_loss, label_smoothing)


class VocabularySums(NamedTuple):
    """What a loss needs of the logits of every place: float32 [B, L] each."""

    log_z: jax.Array
    target: jax.Array
    total: jax.Array


def vocabulary_sums(logits_BLV: jax.Array, targets_BL: jax.Array) -> VocabularySums:
    logits_BLV = logits_BLV.astype(jnp.float32)
    return VocabularySums(
        log_z=jax.nn.logsumexp(logits_BLV, axis=-1),
        target=jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0],
        total=logits_BLV.sum(axis=-1),
    )


def cross_entropy_of(
    sums: VocabularySums, vocab_size: int, z_loss: float, label_smoothing: float
) -> Float[Array, "B L"]:
    """`token_cross_entropy` of logits of which only the sums are left."""
    loss_BL = sums.log_z - sums.target
    if label_smoothing:
        right, wrong = 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)
        entropy = -(right * math.log(right) + (vocab_size - 1) * wrong * math.log(wrong + 1e-20))
        loss_BL = sums.log_z - (right - wrong) * sums.target - wrong * sums.total - entropy
    return loss_BL + z_loss * sums.log_z**2
