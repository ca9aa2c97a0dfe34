"""CLIP (arXiv:2103.00020, section 2.3): which text belongs to which image of the batch, and the other way round.

  scale * cosine      text 1   text 2   text 3
  image 1             29.1      3.0      1.2      softmax over each row, and over each column; the diagonal is right
  image 2              2.2     27.4      0.3
  image 3              1.9      4.1     25.0

The negatives are all other rows of the global batch, on whatever mesh; with micro-batches, those of a micro-batch. The
loss is the mean of both directions. For models with `embed` and `contrast` (TwoTowers). The device half only: `patches`
come with an image pipeline.
"""

import dataclasses

import jax
import jax.numpy as jnp

from t5x_like.features import Features
from t5x_like.losses import Term


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss:
    """Terms: "loss". Held-out metrics also: how often the right text, and the right image, is the best of the batch."""

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        image_BW, text_BW, terms = model.embed(batch, dropout_key=dropout_key)
        return {"loss": softmax_contrast(model.contrast(image_BW, text_BW), is_example(batch)), **terms}

    def measure(self, model, batch: Features) -> dict[str, Term]:
        image_BW, text_BW, _ = model.embed(batch)
        logits_BB, real_B = model.contrast(image_BW, text_BW), is_example(batch)
        return {"loss": softmax_contrast(logits_BB, real_B), **retrieval(logits_BB, real_B)}


def is_example(batch: Features) -> jax.Array:
    """float32 [B]: 0 for rows of padding."""
    return (batch.segment_ids > 0).any(axis=1).astype(jnp.float32)


def softmax_contrast(logits_BB: jax.Array, real_B: jax.Array) -> Term:
    """Cross-entropy of the diagonal over rows and over columns, half each; padding is nobody's negative."""
    both = [masked(logits_BB, real_B), masked(logits_BB.T, real_B)]
    loss_B = sum(jax.nn.logsumexp(x_BB, axis=1) - jnp.diagonal(x_BB) for x_BB in both) / 2
    return Term(jnp.where(real_B > 0, loss_B, 0.0).sum(), real_B.sum())


def masked(logits_BB: jax.Array, real_B: jax.Array) -> jax.Array:
    return jnp.where(real_B[None] > 0, logits_BB.astype(jnp.float32), -1e30)


def retrieval(logits_BB: jax.Array, real_B: jax.Array) -> dict[str, Term]:
    own_B = jnp.arange(len(real_B))
    right = {"text_recall": masked(logits_BB, real_B), "image_recall": masked(logits_BB.T, real_B)}
    return {n: Term(((jnp.argmax(x, axis=1) == own_B) * real_B).sum(), real_B.sum()) for n, x in right.items()}
