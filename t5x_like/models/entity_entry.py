"""Entity tokens among words (LUKE, arXiv:2010.01057, section 3.1): a vector of the entity, and of all its places."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import LayerNorm, Sizes, parameter, project
from t5x_like.models.positions import LearnedPositions


class EntityEntry(nnx.Module):
    """norm(token + entity + position + type); the place of an entity is the mean over the tokens of its mention.

    Reads aux "entity": 0 at words, 1 where an entity is hidden, 2 + e at entity e; and aux "entity_length": tokens of
    its mention, which begins at `features.positions`.

    num_entities, width   of the table of entities, from which a matrix leads to D
    num_types             rows of the table of `features.type_ids` (LUKE as RoBERTa: 1)
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_entities: int,
        init: Initializers,
        rngs: nnx.Rngs,
        width: int = 256,
        max_length: int = 512,
        norm: Callable = LayerNorm,
        num_types: int = 2,
    ):
        D = sizes.d_model
        self.dtype = sizes.dtype
        self.positions = LearnedPositions(sizes, init=init, rngs=rngs, max_length=max_length)
        self.entities = parameter(rngs, init.embedding, (num_entities + 2, width), ("vocab", "embed"), fan_in=width)
        self.widen = parameter(rngs, init.mlp_in, (width, D), (None, "embed"), fan_in=width)
        self.types = parameter(rngs, init.embedding, (num_types, D), (None, "embed"), fan_in=D)
        self.norm = norm(D)

    def __call__(self, x_BLD: jax.Array, features: Features) -> jax.Array:
        entity_BL, length_BL = features.aux["entity"], jnp.maximum(features.aux["entity_length"], 1)
        known_BLE = jnp.where(entity_BL[..., None] > 0, jnp.take(self.entities[...], entity_BL, axis=0, mode="fill"), 0)
        first_BL = features.positions[..., 0]
        sums = jnp.cumsum(jnp.pad(self.positions.table[...], ((1, 0), (0, 0))), axis=0)
        place_BLD = jnp.take(sums, first_BL + length_BL, axis=0, mode="fill")
        place_BLD = (place_BLD - jnp.take(sums, first_BL, axis=0, mode="fill")) / length_BL[..., None]
        type_ids_BL = jnp.zeros_like(entity_BL) if features.type_ids is None else features.type_ids
        x_BLD = x_BLD + project(known_BLE, self.widen[...], dtype=self.dtype).astype(x_BLD.dtype)
        x_BLD = x_BLD + place_BLD.astype(x_BLD.dtype)
        return self.norm(x_BLD + jnp.take(self.types[...], type_ids_BL, axis=0, mode="fill").astype(x_BLD.dtype))
