"""What stands between a token's embedding and the first layer: positions, segment types, a norm."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import Sizes, parameter


class Entry(nnx.Module):
    """x + positions + types, then the norm; each part only where it is given (T5 and LLaMA have none of them).

    positions   LearnedPositions (GPT-2, BERT), or another that gives vectors
    num_types   rows of the table of `features.type_ids` (BERT: 2); where the batch has no type ids all are 0
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        positions: Callable | None = None,
        norm: Callable | None = None,
        num_types: int = 0,
    ):
        D = sizes.d_model
        self.positions = positions and positions(sizes, init=init, rngs=rngs)
        types = (num_types, D), (None, "embed")
        self.types = parameter(rngs, init.embedding, *types, fan_in=D) if num_types else None
        self.norm = norm and norm(D)

    @property
    def steps(self) -> tuple[int, ...]:
        """From the positions of a token to those of the one that is generated after it."""
        return (1,) if self.positions is None else self.positions.steps

    def __call__(self, x_BLD: jax.Array, features: Features) -> jax.Array:
        if self.positions is not None:
            x_BLD = x_BLD + self.positions(features.positions).astype(x_BLD.dtype)
        if self.types is not None:
            zeros_BL = jnp.zeros(x_BLD.shape[:2], jnp.int32)
            type_ids_BL = zeros_BL if features.type_ids is None else features.type_ids
            x_BLD = x_BLD + jnp.take(self.types[...], type_ids_BL, axis=0, mode="fill").astype(x_BLD.dtype)
        return x_BLD if self.norm is None else self.norm(x_BLD)
