"""Losses as (sum, weight): the step divides once, after adding up micro-batches and hosts."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
        if self.z_loss < 0:
            raise ValueError(f"z_loss {self.z_loss} is negative; 0 turns it off")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing {self.label_smoothing} is not in [0, 1); 0 turns it off")

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        x_BLD, terms = model.hidden(batch, dropout_key=dropout_key)
        loss_BL = token_cross_entropy(
            model.logits(x_BLD), batch.targets, z_loss=self.z_loss, label_smoothing=self.label_smoothing
        )
        return {"loss": weighted(loss_BL, batch.loss_weights), **terms}


def token_metrics(model, batch: Features) -> dict[str, Term]:
    """What is reported of held-out text: "loss" in nats per target without z-loss or smoothing, and "accuracy"."""
    logits_BLV = model.logits(model.hidden(batch).x_BLD)
    right_BL = (jnp.argmax(logits_BLV, axis=-1) == batch.targets).astype(jnp.float32)
    return {
        "loss": weighted(token_cross_entropy(logits_BLV, batch.targets), batch.loss_weights),
        "accuracy": weighted(right_BL, batch.loss_weights),
    }


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
    logits = logits.astype(jnp.float32)
    log_z_BL = jax.nn.logsumexp(logits, axis=-1)
    target_BL = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss_BL = log_z_BL - target_BL
    if label_smoothing:
        V = logits.shape[-1]
        right, wrong = 1.0 - label_smoothing, label_smoothing / (V - 1)
        entropy = -(right * math.log(right) + (V - 1) * wrong * math.log(wrong + 1e-20))
        loss_BL = log_z_BL - (right - wrong) * target_BL - wrong * logits.sum(axis=-1) - entropy
    return loss_BL + z_loss * log_z_BL**2
