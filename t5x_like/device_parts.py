"""Functions on what one device holds, for the parts that name the axes of the mesh and send things themselves.

The mesh is the one that a program is traced for (partitioning.mesh.on_mesh); without one nothing is split.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

ROWS, LENGTH = ("data", "fsdp", "expert"), ("context",)  # axes that split the rows of a batch, and every row


def size_of(axis: str) -> int:
    """Of the mesh that this is traced for; 1 where it has no such axis."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def over_axes(function: Callable, axes: Sequence[str], in_specs: Any, out_specs: Any) -> Callable:
    """`function` on each device's own part along these axes of the mesh; along the others the compiler has its way.

    "stage" is always among them: a pipeline maps layers over it, and jax asks that a mapped dimension's axis is named.
    """
    named = {*axes, *({"stage"} & set(jax.sharding.get_abstract_mesh().axis_names))}
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, axis_names=named, check_vma=False)


class OwnParts(NamedTuple):
    """A model as one device holds it: `values` in the order of `paths`, each split over "fsdp" along its `dims`."""

    graphdef: nnx.GraphDef
    paths: tuple[Any, ...]
    axes: list[tuple[str | None, ...]]
    dims: list[int | None]
    values: list[jax.Array]

    def whole(self) -> nnx.Module:
        """The model with every parameter that is used gathered."""
        values = map(gathered, self.values, self.dims)
        return nnx.merge(self.graphdef, nnx.from_flat_state(zip(self.paths, values, strict=True)))


def on_own_places(function: Callable, model: nnx.Module, *arrays: jax.Array) -> Any:
    """function(model, *arrays [B, L, ...]) -> arrays [B, L], on each device's own rows and pieces of rows.

    The parameters that it uses are gathered once, before it, and their gradients are summed once, after it, whatever
    loops it has: inside a loop the compiler would do both in every turn.
    """
    if not any(split_places()):
        return function(model, *arrays)
    return on_own_parts(lambda parts, *arrays: function(parts.whole(), *arrays), model, *arrays)


def on_own_parts(function: Callable, model: nnx.Module, *arrays: jax.Array) -> Any:
    """function(OwnParts, *arrays [B, L, ...]) -> arrays [B, L], which gathers what it needs when it needs it."""
    graphdef, state = nnx.split(model)
    paths, variables = zip(*nnx.to_flat_state(state), strict=True)
    axes, values = [axes_of(variable) for variable in variables], [variable.get_value() for variable in variables]
    rows, length = split_places()
    dims = [split_dim(one) for one in axes]

    def own(values, *arrays):
        return function(OwnParts(graphdef, paths, axes, dims, values), *arrays)

    if not rows and not length:
        return own(values, *arrays)
    specs = [P() if dim is None else P(*[None] * dim, "fsdp") for dim in dims]
    places = P(rows, length)
    return over_axes(own, (*rows, *length), (specs, *[places] * len(arrays)), places)(values, *arrays)


def split_places() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The axes of the mesh that split the rows of a batch, and every row, over more than one device."""
    rows, length = (tuple(axis for axis in axes if size_of(axis) > 1) for axes in (ROWS, LENGTH))
    return rows, length


def axes_of(variable: nnx.Variable) -> tuple[str | None, ...]:
    return variable.get_metadata().get("axes", ())


def split_dim(axes: tuple[str | None, ...]) -> int | None:
    """The dimension of a parameter that lies over "fsdp": that named "embed", as AxisRules have it."""
    return axes.index("embed") if "embed" in axes and size_of("fsdp") > 1 else None


def gathered(value: jax.Array, dim: int | None) -> jax.Array:
    return value if dim is None else jax.lax.all_gather(value, "fsdp", axis=dim, tiled=True)
