"""Logical axes to mesh axes. Models name axes in words; only parts that send things themselves know the mesh.

A row says over which mesh axis (or axes) a logical axis is split. Kinds of parallelism are values of this table:

  data parallel            embed=None
  ZeRO-1 (optimizer only)  parameters with embed=None, optimizer state with embed=("data", "fsdp"): two tables
  ZeRO-3 / FSDP            embed="fsdp"
  hybrid sharding          embed="fsdp", batch over data too: replicas of a group of devices that share the parameters
  tensor parallel          mlp, heads, vocab = "tensor" (Megatron, arXiv:1909.08053)
  sequence parallel        and length="tensor" between the products (arXiv:2205.05198): configs/meshes/sequence.gin
  expert parallel          expert="expert", and embed=("fsdp", "expert") for what is no expert; a capacity's places
                           change from rows to experts, which is an all-to-all
  context parallel         length="context"; keys and values come whole (key_length=None), or around the ring
  pipeline                 layers="stage", with the layer loop of stages.py

A mesh axis of size 1 splits nothing, so the default table serves every mesh.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MeshAxes = str | tuple[str, ...] | None
ShardActivation = Callable[..., jax.Array]  # (x, *logical_axes) -> x, placed


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisRules:
    """The mesh axis (or axes, or None) over which each logical axis is split."""

    # Of parameters.
    vocab: MeshAxes = "tensor"
    embed: MeshAxes = "fsdp"
    mlp: MeshAxes = "tensor"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    layers: MeshAxes = "stage"
    relative_buckets: MeshAxes = None
    positions: MeshAxes = None
    expert: MeshAxes = "expert"
    # Of activations.
    batch: MeshAxes = ("data", "fsdp", "expert")
    length: MeshAxes = "context"  # between the parts of a layer
    inner_length: MeshAxes = "context"  # of heads and mlp widths, which tensor splits
    key_length: MeshAxes = None
    expert_batch: MeshAxes = ("data", "fsdp")  # of what the experts hold
    expert_activation: MeshAxes = "expert"
    embed_activation: MeshAxes = None
    heads_activation: MeshAxes = "tensor"
    mlp_activation: MeshAxes = "tensor"
    vocab_activation: MeshAxes = "tensor"

    def spec(self, *axes: str | None) -> P:
        """The PartitionSpec of an array with these logical axes."""
        table = dataclasses.asdict(self)
        unknown = [axis for axis in axes if axis is not None and axis not in table]
        if unknown:
            raise ValueError(f"no rule for the logical axes {unknown}; AxisRules has {', '.join(table)}")
        # Kernels of experts lie over "expert" by the dimension of that name, whatever embed has of it elsewhere.
        taken = as_tuple(table["expert"]) if "expert" in axes else ()
        entries = [None if axis is None else table[axis] for axis in axes]
        entries = [entry if axis == "expert" else less(entry, taken) for axis, entry in zip(axes, entries, strict=True)]
        used = [mesh_axis for entry in entries for mesh_axis in as_tuple(entry)]
        twice = sorted({mesh_axis for mesh_axis in used if used.count(mesh_axis) > 1})
        if twice:
            raise ValueError(f"axes {axes} would be split over {twice} twice; set one of their AxisRules to None")
        return P(*(entry if entry is None or isinstance(entry, str) else tuple(entry) for entry in entries))


def less(entry: MeshAxes, taken: Sequence[str]) -> MeshAxes:
    """`entry` as it is, or what is left of it."""
    left = tuple(axis for axis in as_tuple(entry) if axis not in taken)
    if len(left) == len(as_tuple(entry)):
        return entry
    return left[0] if len(left) == 1 else left or None


def without(spec: P, mesh_axes: Sequence[str]) -> P:
    return P(*(tuple(axis for axis in as_tuple(entry) if axis not in mesh_axes) for entry in spec))


def as_tuple(entry: MeshAxes) -> tuple[str, ...]:
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def check_divides(mesh: Mesh, spec: P, *, shape: tuple[int, ...], axes: tuple[str | None, ...], what: str) -> None:
    """Raises if a dimension does not divide by the devices that it is split over."""
    if len(shape) != len(axes):
        raise ValueError(f"{what} has {len(shape)} dimensions {shape} and {len(axes)} axis names {axes}")
    for dim, axis, entry in zip(shape, axes, spec, strict=True):
        unknown = [name for name in as_tuple(entry) if name not in mesh.shape]
        if unknown:
            raise ValueError(f"AxisRules.{axis} = {entry!r}: the mesh axes are {mesh.axis_names}")
        parts = math.prod(mesh.shape[name] for name in as_tuple(entry))
        if dim % parts:
            raise ValueError(
                f"{what} {shape}: dimension {axis}={dim} does not divide by {parts} devices "
                f"({' x '.join(as_tuple(entry))}); change {axis} to a multiple of {parts}, "
                f"make that mesh axis smaller, or set AxisRules.{axis} = None"
            )


def shardings(
    mesh: Mesh, rules: AxisRules, shapes: Mapping[str, jax.ShapeDtypeStruct], axes: Mapping[str, tuple[str | None, ...]]
) -> dict[str, NamedSharding]:
    """Where each parameter lives, by its name."""
    placed = {}
    for name, shape in shapes.items():
        spec = rules.spec(*axes[name])
        check_divides(mesh, spec, shape=shape.shape, axes=axes[name], what=f"parameter {name}")
        placed[name] = NamedSharding(mesh, spec)
    return placed


@dataclasses.dataclass(frozen=True)
class Constraint:
    """Places an activation by its logical axes; equal and hashable by value, so that jit compiles once."""

    mesh: Mesh
    rules: AxisRules

    def __call__(self, x: jax.Array, *axes: str | None) -> jax.Array:
        spec, around = self.rules.spec(*axes), jax.sharding.get_abstract_mesh()
        if around.manual_axes:  # x is what one device holds along these
            spec = without(spec, around.manual_axes)
        check_divides(self.mesh, spec, shape=x.shape, axes=axes, what="activation")
        return jax.lax.with_sharding_constraint(x, spec if around.manual_axes else NamedSharding(self.mesh, spec))


def constrain(mesh: Mesh, rules: AxisRules) -> ShardActivation:
    """The `shard` argument of models on this mesh: shard(x, "batch", "length", "embed_activation") -> x."""
    return Constraint(mesh, rules)


def batch_sharding(mesh: Mesh, rules: AxisRules, batch_size: int) -> NamedSharding:
    """Where the rows of a batch live (first dimension only, so it serves arrays of any rank)."""
    spec = rules.spec("batch")
    check_divides(mesh, spec, shape=(batch_size,), axes=("batch",), what="a batch of shape")
    return NamedSharding(mesh, spec)


def optimizer_shardings(
    opt_state_shapes: Any,
    param_shapes: Mapping[str, jax.ShapeDtypeStruct],
    param_shardings: Mapping[str, NamedSharding],
    mesh: Mesh,
) -> Any:
    """Where each array of an Optax state lives: beside its parameter where it has one, else on every device.

    Any dict inside the state with the parameters' names is one value per parameter (moments, factored rows and columns,
    masked or not), so no optimizer needs a table of its own. Pass other `param_shardings` for ZeRO-1.
    """
    replicated = NamedSharding(mesh, P())

    def per_parameter(node):
        return isinstance(node, dict) and node.keys() == param_shapes.keys()

    def place(node):
        if not per_parameter(node):
            return replicated
        # A masked entry is an empty tuple, and tree.map over nothing gives nothing.
        return {
            name: jax.tree.map(lambda leaf, name=name: beside(leaf, param_shapes[name], param_shardings[name]), entry)
            for name, entry in node.items()
        }

    return jax.tree.map(place, opt_state_shapes, is_leaf=per_parameter)


def beside(leaf: jax.ShapeDtypeStruct, param: jax.ShapeDtypeStruct, sharding: NamedSharding) -> NamedSharding:
    """The parameter's sharding, cut down to a leaf of its shape, of its shape without one dimension (Adafactor), or
    with a value for each block of the last one (8-bit state), or to a factor for some of its dimensions (SOAP)."""
    entries = [*sharding.spec, *[None] * (len(param.shape) - len(sharding.spec))]
    if leaf.shape == param.shape:
        return sharding
    if leaf.shape[:-1] == param.shape[:-1] and leaf.ndim == len(param.shape):  # one value for a block of the last one
        axes = entries[-1] if isinstance(entries[-1], tuple) else (entries[-1],)
        parts = math.prod(sharding.mesh.shape[axis] for axis in axes if axis is not None)
        return NamedSharding(sharding.mesh, P(*entries[:-1], None if leaf.shape[-1] % parts else entries[-1]))
    for dim in range(len(param.shape)):
        if leaf.shape == param.shape[:dim] + param.shape[dim + 1 :]:
            return NamedSharding(sharding.mesh, P(*entries[:dim], *entries[dim + 1 :]))
    return NamedSharding(sharding.mesh, square(leaf.shape, param.shape, entries, sharding.mesh))


def square(shape: tuple[int, ...], param: tuple[int, ...], entries: list[MeshAxes], mesh: Mesh) -> P:
    """Of a factor [..., m, m] for dimensions of the parameter that are m together: split as they are, and its second
    dimension as the parameter's others, so that it is in as many parts as the parameter. Anything else lies whole."""
    lead = len(shape) - 2
    if lead < 0 or shape[-1] != shape[-2] or shape[:lead] != param[:lead]:
        return P()
    dims = range(lead, len(param))
    for first, last in ((i, j) for i in dims for j in dims if i <= j):
        if math.prod(param[first : last + 1]) == shape[-1]:
            inside = [entry for entry in entries[first : last + 1] if entry is not None]
            outside = [entry for entry in (*entries[lead:first], *entries[last + 1 :]) if entry is not None]
            split = [next(iter(part), None) for part in (inside, outside)]
            parts = [math.prod(mesh.shape[axis] for axis in as_tuple(entry)) for entry in split]
            kept = (None if shape[-1] % n else entry for entry, n in zip(split, parts, strict=True))
            return P(*entries[:lead], *kept)
    return P()
