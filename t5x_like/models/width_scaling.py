"""The model's half of muP (Yang et al., arXiv:2203.03466, table 8): what was tuned at one width holds at another.

                     initial deviation      output times          Adam's rate
  embedding          constant               1                     constant
  hidden matrices    fan_in ** -0.5         1                     / (width / base_width)
  head               constant               base_width / width    constant

The last column is `mup_adamw`'s. Widen by more heads of the same head_dim and d_ff in proportion. If head_dim grows,
Attention.logit_scale must fall as its inverse and not as its root. A tied head has the embedding's deviation.
"""

from collections.abc import Callable

import jax
from flax import nnx

from t5x_like.models.heads import UntiedHead
from t5x_like.models.initializers import Initializers, fan_in_normal, normal
from t5x_like.models.layers import Sizes


def mup_init(
    *, num_layers: int, head_dim: int, embedding: float = 1.0, hidden: float = 1.0, logits: float = 0.1
) -> Initializers:
    """Normal: the embedding's and the head's deviations are constants, a hidden matrix's is hidden / sqrt(fan_in)."""
    inside = fan_in_normal(hidden)
    every = dict.fromkeys(Initializers._fields, inside)
    return Initializers(
        **every | {"embedding": normal(embedding), "positions": normal(embedding), "logits": normal(logits)}
    )


class MupHead(nnx.Module):
    """`head`, whose logits are multiplied by base_width / d_model."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        vocab_size: int,
        init: Initializers,
        rngs: nnx.Rngs,
        base_width: int,
        head: Callable = UntiedHead,
    ):
        if base_width < 1:
            raise ValueError(f"base_width {base_width} must be at least 1: the d_model that was tuned")
        self.multiplier = base_width / sizes.d_model
        self.head = head(sizes, vocab_size=vocab_size, init=init, rngs=rngs)

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        return self.head(x_BLD, table_VD) * self.multiplier
