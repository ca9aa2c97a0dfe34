"""Optimizer state that waits in the host's memory between steps (as ZeRO-Offload's, arXiv:2101.06840, does).

What lies on the device between steps falls; the peak of a step did not in any program that was planned for a TPU
(docs/results.md), as all moments come at once.

Moments lie in pinned memory of the host beside each device, split as the parameter is. They come to the device for the
update and go back behind it; the numbers are the same.
"""

from typing import Any, NamedTuple

import jax
import optax


class InHostMemory(NamedTuple):
    inner: Any


def in_host_memory(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimizer`, whose state lies in pinned host memory. It stands around all others, so not with `loss_scaled`."""

    def init(params):
        return InHostMemory(optimizer.init(params))

    def update(grads, state, params=None):
        updates, inner = optimizer.update(grads, moved(state.inner, jax.memory.Space.Device), params)
        return updates, InHostMemory(moved(inner, jax.memory.Space.Host))

    return optax.GradientTransformation(init, update)


def moved(state: Any, space: jax.memory.Space) -> Any:
    """All but single numbers, such as counts, which stay on the device."""
    return jax.tree.map(lambda x: jax.device_put(x, space) if x.ndim else x, state)


def placed(shardings: Any, shapes: Any) -> Any:
    """The shardings of a state, with the host's memory for what is to lie there."""

    def place(sharding, shape):
        return sharding.with_memory_kind("pinned_host") if shape.ndim else sharding

    def node(shardings, shapes):
        return jax.tree.map(place, shardings, shapes) if isinstance(shapes, InHostMemory) else shardings

    def is_whole(node):
        return isinstance(node, InHostMemory)

    return jax.tree.map(node, shardings, shapes, is_leaf=is_whole)
