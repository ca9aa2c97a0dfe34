"""Token embeddings narrower than the layers (ALBERT, arXiv:1909.11942, section 3.1; ELECTRA, arXiv:2003.10555).

  tokens [B, L] -- FactorisedEmbedding, table [V, E] --> [B, L, E] -- FactorisedEntry --> [B, L, D]

Positions, types and the norm of the embedding have the width E too, as in the released models, so the projection to D
stands after them, at the end of the entry.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.entry import Entry
from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import Sizes, add_bias, parameter, project, zeros


class FactorisedEmbedding(nnx.Module):
    """Token ids [B, L] to vectors [B, L, E] of `width` E. An id outside the vocabulary gives NaN."""

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs, width: int):
        self.dtype = sizes.dtype
        self.table = parameter(rngs, init.embedding, (vocab_size, width), ("vocab", "embed"), fan_in=width)

    def __call__(self, tokens_BL: jax.Array) -> jax.Array:
        return jnp.take(self.table[...], tokens_BL, axis=0, mode="fill").astype(self.dtype)


class FactorisedEntry(nnx.Module):
    """An entry of `width` E, then a projection with a bias to D; where E is D there is no projection (ELECTRA base)."""

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs, width: int, entry: Callable = Entry):
        D = sizes.d_model
        self.dtype, self.is_narrow = sizes.dtype, width != D
        self.narrow = entry(dataclasses.replace(sizes, d_model=width), init=init, rngs=rngs)
        kernel = (width, D), (None, "embed")
        self.kernel = parameter(rngs, init.mlp_in, *kernel, fan_in=width) if self.is_narrow else None
        self.bias = zeros((D,), ("embed",)) if self.is_narrow else None

    @property
    def steps(self) -> tuple[int, ...]:
        return self.narrow.steps

    def __call__(self, x_BLE: jax.Array, features: Features) -> jax.Array:
        y_BLE = self.narrow(x_BLE, features)
        return add_bias(project(y_BLE, self.kernel[...], dtype=self.dtype), self.bias) if self.is_narrow else y_BLE
