"""Vectors that tell a token its position: added to its embedding, made as `Part(sizes, init=, rngs=)`."""

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import Sizes, parameter


class LearnedPositions(nnx.Module):
    """One vector per place (GPT-2, BERT). A place beyond `max_length` gives NaN, not a wrong row."""

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs, max_length: int):
        shape = (max_length, sizes.d_model)
        self.table = parameter(rngs, init.positions, shape, ("positions", "embed"), fan_in=sizes.d_model)

    def __call__(self, positions_BLP: jax.Array) -> jax.Array:
        return jnp.take(self.table[...], positions_BLP[:, :, 0], axis=0, mode="fill")
