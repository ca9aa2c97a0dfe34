"""SigLIP (arXiv:2303.15343, section 3.2): does this text belong to this image? Asked of every pair of the batch alone.

  -(1 / B) sum_i sum_j log sigmoid(z_ij (scale * x_i . y_j + bias)),   z_ij = 1 where i = j, else -1

A sum over pairs divided by the number of images, as in the paper; nothing is normalised over the batch, so that pairs
may lie on any device. All else as in `contrastive`; the model's `contrast` is SigmoidContrast.
"""

import dataclasses

import jax
import jax.numpy as jnp

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.contrastive import is_example, retrieval


@dataclasses.dataclass(frozen=True)
class SigmoidContrastiveLoss:
    """Terms: "loss". Held-out metrics also: how often the right text, and the right image, is the best of the batch."""

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        image_BW, text_BW, terms = model.embed(batch, dropout_key=dropout_key)
        return {"loss": sigmoid_contrast(model.contrast(image_BW, text_BW), is_example(batch)), **terms}

    def measure(self, model, batch: Features) -> dict[str, Term]:
        image_BW, text_BW, _ = model.embed(batch)
        logits_BB, real_B = model.contrast(image_BW, text_BW), is_example(batch)
        return {"loss": sigmoid_contrast(logits_BB, real_B), **retrieval(logits_BB, real_B)}


def sigmoid_contrast(logits_BB: jax.Array, real_B: jax.Array) -> Term:
    sign_BB = 2.0 * jnp.eye(len(real_B)) - 1.0
    loss_BB = jax.nn.softplus(-sign_BB * logits_BB.astype(jnp.float32))
    pairs_BB = real_B[:, None] * real_B[None]
    return Term(jnp.where(pairs_BB > 0, loss_BB, 0.0).sum(), real_B.sum())
