"""From hidden states to logits: compute-type product, float32 result.

A head is made as `Head(sizes, vocab_size=, init=, rngs=)` and called as `head(x_BLD, table_VD)` with the table of the
token embedding.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.device_parts import size_of
from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import (
    LayerNorm,
    Sizes,
    activation_named,
    add_bias,
    parameter,
    project,
    zeros,
)


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


class CappedTiedHead(nnx.Module):
    """The embedding table again, and logits kept below `softcap` by softcap * tanh(logits / softcap) (Gemma 2)."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs, softcap: float = 30.0):
        self.dtype, self.softcap = sizes.dtype, softcap

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        logits_BLV = multiply(x_BLD, table_VD, contracted_dim=1, dtype=self.dtype)
        return self.softcap * jnp.tanh(logits_BLV / self.softcap)


class ScaledTiedHead(nnx.Module):
    """The embedding table again, logits divided by sqrt(D): its rows have unit variance (T5 1.0)."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs):
        self.dtype = sizes.dtype

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        logits_BLV = multiply(x_BLD, table_VD, contracted_dim=1, dtype=self.dtype)
        return logits_BLV / table_VD.shape[1] ** 0.5


class BiasedTiedHead(nnx.Module):
    """The embedding table again, and a bias per token of the vocabulary (BART's `final_logits_bias`)."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs):
        self.dtype = sizes.dtype
        self.bias = zeros((vocab_size,), ("vocab",))

    def __call__(self, x_BLD: jax.Array, table_VD: jax.Array) -> jax.Array:
        return add_bias(multiply(x_BLD, table_VD, contracted_dim=1, dtype=self.dtype), self.bias)


class MlmHead(nnx.Module):
    """norm(activation(dense(x))), times the embedding table, and a bias per token (BERT, arXiv:1810.04805).

    width      of the embedding table; None is D (ALBERT, ELECTRA: that of their FactorisedEmbedding)
    use_bias   of the dense layer (ModernBERT has none)
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        vocab_size: int,
        init: Initializers,
        rngs: nnx.Rngs,
        width: int | None = None,
        activation: str = "gelu",
        norm: Callable = LayerNorm,
        use_bias: bool = True,
    ):
        D, E = sizes.d_model, sizes.d_model if width is None else width
        self.dtype, self.activation = sizes.dtype, activation_named(activation)
        self.dense = parameter(rngs, init.mlp_in, (D, E), ("embed", "mlp"), fan_in=D)
        self.dense_bias = zeros((E,), ("mlp",)) if use_bias else None
        self.norm = norm(E)
        self.bias = zeros((vocab_size,), ("vocab",))

    def __call__(self, x_BLD: jax.Array, table_VE: jax.Array) -> jax.Array:
        y_BLE = self.activation(add_bias(project(x_BLD, self.dense[...], dtype=self.dtype), self.dense_bias))
        return add_bias(multiply(self.norm(y_BLE), table_VE, contracted_dim=1, dtype=self.dtype), self.bias)


def multiply(x_BLD: jax.Array, matrix: jax.Array, *, contracted_dim: int, dtype: str) -> jax.Array:
    """x times the matrix over its `contracted_dim`: operands in `dtype`, sums and result in float32."""
    tokens = x_BLD.shape[:2] if size_of("context") > 1 else (-1,)  # as in layers.project
    x = x_BLD.reshape(*tokens, x_BLD.shape[-1]).astype(dtype)
    dims = (((x.ndim - 1,), (contracted_dim,)), ((), ()))
    logits = jax.lax.dot_general(x, matrix.astype(dtype), dims, preferred_element_type=jnp.float32)
    return logits.reshape(*x_BLD.shape[:2], -1)
