"""Optimizer state in 8 bits (Dettmers et al., arXiv:2110.02861): a quarter of the bytes of every moment.

  codes   int8, of the parameter's shape: which of 256 values between -1 and 1 (of a second moment, between 0 and 1)
  scales  float32, one for `block` values along the last dimension: the largest size among them

The 256 values are the paper's dynamic tree quantisation: seven powers of ten, the more values in each the larger it is.
State is expanded to float32 for the update and compressed again behind it, each to the nearest value. Codes are split
over a mesh as the parameter is.
"""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

POWERS = 7
NOT_COMPRESSED = r"(^|/)(scale|bias|table|embedding|.*_bias|.*table)(/|$)"
SECOND_MOMENTS = ("nu", "v")  # the names of state that is never negative


class Compressed(NamedTuple):
    codes: jax.Array
    scales: jax.Array


def eight_bit_state(
    optimizer: optax.GradientTransformation,
    *,
    block: int = 256,
    smallest: int = 4096,
    not_compressed: str = NOT_COMPRESSED,
) -> optax.GradientTransformation:
    """`optimizer` with its moments in 8 bits.

    smallest         parameters with fewer values keep their state in float32, as in the authors' code
    not_compressed   so do those in whose name this is found: embeddings, whose gradients are rare and large (section
                     2.3 of the paper), norms and biases
    """
    if block < 1 or smallest < 1:
        raise ValueError(f"block {block} and smallest {smallest} must be at least 1")
    pattern = re.compile(not_compressed)

    def init(params):
        return compress(optimizer.init(params), params)

    def update(grads, state, params=None):
        updates, new = optimizer.update(grads, expand(state), params)
        return jax.tree.map(lambda update, grad: update.astype(grad.dtype), updates, grads), compress(new, grads)

    def compress(state: Any, params: dict[str, Any]) -> Any:
        def one(path, leaf):
            name = next((key.key for key in reversed(path) if getattr(key, "key", None) in params), None)
            is_moment = name is not None and leaf.shape == params[name].shape
            if not is_moment or leaf.size < smallest or pattern.search(name):
                return leaf
            return quantise(leaf, block, is_second_moment(path))

        return jax.tree_util.tree_map_with_path(one, state)

    def expand(state: Any) -> Any:
        def one(path, node):
            return dequantise(node, is_second_moment(path)) if isinstance(node, Compressed) else node

        return jax.tree_util.tree_map_with_path(one, state, is_leaf=lambda node: isinstance(node, Compressed))

    return optax.GradientTransformation(init, update)


def is_second_moment(path: tuple[Any, ...]) -> bool:
    return any(getattr(key, "name", None) in SECOND_MOMENTS for key in path)


@functools.cache
def values(*, signed: bool) -> np.ndarray:
    """The 256 values, ascending, float32: the paper's map, as `create_dynamic_map` of its code makes it."""
    found = [0.0, 1.0]
    for power in range(POWERS):
        edges = np.linspace(0.1, 1.0, 2 ** (power + (not signed)) + 1)
        middles = 10.0 ** (power + 1 - POWERS) * (edges[:-1] + edges[1:]) / 2
        found += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(found, np.float32))


def quantise(array: jax.Array, block: int, is_second: bool) -> Compressed:
    """Each value to the nearest of its block's scale times `values`; what lies half-way goes to the larger."""
    last = array.shape[-1]
    size = min(block, last)
    blocks = -(-last // size)
    padded = jnp.pad(array.astype(jnp.float32), [(0, 0)] * (array.ndim - 1) + [(0, blocks * size - last)])
    grouped = padded.reshape(*array.shape[:-1], blocks, size)
    scales = jnp.abs(grouped).max(axis=-1)
    relative = grouped / jnp.maximum(scales, jnp.finfo(jnp.float32).tiny)[..., None]
    table = values(signed=not is_second)
    codes = jnp.searchsorted((table[:-1] + table[1:]) / 2, relative, side="right", method="scan_unrolled") - 128
    flat = codes.astype(jnp.int8).reshape(*array.shape[:-1], blocks * size)
    return Compressed(flat[..., :last], scales)


def dequantise(state: Compressed, is_second: bool) -> jax.Array:
    """float32, of the shape of the codes."""
    codes, scales = state
    size = -(-codes.shape[-1] // scales.shape[-1])
    found = jnp.asarray(values(signed=not is_second))[codes.astype(jnp.int32) + 128]
    return found * jnp.repeat(scales, size, axis=-1)[..., : codes.shape[-1]]
