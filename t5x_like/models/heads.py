"""From hidden states to logits: compute-type product, float32 result.

A head is made as `Head(sizes, vocab_size=, init=, rngs=)` and called as `head(x_BLD, table_VD)` with the table of the
token embedding.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import Sizes, parameter


class UntiedHead(nnx.Module):
    """A kernel of its own (T5 1.1, LLaMA)."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs):
        self.dtype = sizes.dtype
        shape = (sizes.d_model, vocab_size)
        self.kernel = parameter(rngs, init.logits, shape, ("embed", "vocab"), fan_in=sizes.d_model)

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        return multiply(x_BLD, self.kernel[...], contracted_dim=0, dtype=self.dtype)


class TiedHead(nnx.Module):
    """The embedding table again (GPT-2)."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs):
        self.dtype = sizes.dtype

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        return multiply(x_BLD, table_VD, contracted_dim=1, dtype=self.dtype)


class ScaledTiedHead(nnx.Module):
    """The embedding table again, logits divided by sqrt(D): its rows have unit variance (T5 1.0)."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs):
        self.dtype = sizes.dtype

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        logits_BLV = multiply(x_BLD, table_VD, contracted_dim=1, dtype=self.dtype)
        return logits_BLV / table_VD.shape[1] ** 0.5


def multiply(x_BLD: jax.Array, matrix: jax.Array, *, contracted_dim: int, dtype: str) -> jax.Array:
    """x times the matrix over its `contracted_dim`: operands in `dtype`, sums and result in float32."""
    x_TD = x_BLD.reshape(-1, x_BLD.shape[-1]).astype(dtype)  # flat, as in layers.project
    dims = (((1,), (contracted_dim,)), ((), ()))
    logits_TV = jax.lax.dot_general(x_TD, matrix.astype(dtype), dims, preferred_element_type=jnp.float32)
    return logits_TV.reshape(*x_BLD.shape[:2], -1)
