"""What a stack remembers while it decodes: an explicit pytree, given to every step and returned by it.

Rows are left-aligned and of their own lengths. The token at position p of a row lies in slot p, so that a slot's number
is its position, and a slot with segment 0 is free:

  slot         0    1    2    3    4
  row 0       the  cat  sat  on   -        length 4
  row 1       a    dog  -    -    -        length 2
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# write(slots [B, M, ...], new [B, L, ...]) -> slots with the new values in their places.
Write = Callable[[jax.Array, jax.Array], jax.Array]


class KeysValues(NamedTuple):
    """Of one layer, in compute type."""

    keys_BMGH: jax.Array
    values_BMGH: jax.Array


class LayerCache(NamedTuple):
    own: KeysValues
    cross: KeysValues | None  # of the encoder's output; computed once, in prefill


class Cache(NamedTuple):
    layers: Any  # LayerCache per layer: a list where layers are unrolled, stacked [X, ...] where they are scanned
    segments_BM: jax.Array
    order_BM: jax.Array
    lengths_B: jax.Array
    positions_BP: jax.Array  # of the token that comes next
    encoder_segments_BM: jax.Array | None = None


def write_from_start(slots: jax.Array, new: jax.Array) -> jax.Array:
    """Fills slots 0 ... L-1."""
    return jax.lax.dynamic_update_slice(slots, new.astype(slots.dtype), (0,) * slots.ndim)


def write_at(lengths_B: jax.Array) -> Write:
    """A writer of one token per row, into the row's own slot."""

    def write(slots, new):
        return slots.at[jnp.arange(slots.shape[0]), lengths_B].set(new[:, 0].astype(slots.dtype))

    return write
