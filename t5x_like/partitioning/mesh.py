"""Which device stands where: the one mesh of a run.

data     replicas of the parameters, each with its own rows of the batch
fsdp     rows of the batch too, but parameters and optimizer state are split over it
expert   rows of the batch too; in a mixture of experts each device holds some of the experts, and tokens travel
context  pieces of every row: long rows on several devices
stage    layers: each device holds some of them, and micro-batches travel from one to the next
tensor   one matrix multiplication is split over it, so it goes to the devices with the fastest links (last axis)
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

MESH_AXES = ("stage", "data", "fsdp", "expert", "context", "tensor")
CROSS_SLICES = ("data", "stage")  # the first that the slices divide


def make_mesh(
    *,
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    context: int = 1,
    expert: int = 1,
    stage: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """The mesh of these sizes; the one axis that is -1 takes all devices that are left."""
    asked = dict(zip(MESH_AXES, (stage, data, fsdp, expert, context, tensor), strict=True))
    devices = jax.devices() if devices is None else list(devices)
    sizes = mesh_sizes(asked, len(devices))
    return Mesh(arrange(sizes, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def on_mesh(mesh: Mesh, function: Callable) -> Callable:
    """`function`, traced for this mesh: what it calls finds it in jax.sharding.get_abstract_mesh()."""

    @functools.wraps(function)
    def traced(*arguments, **named):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments, **named)

    return traced


def mesh_sizes(asked: dict[str, int], num_devices: int) -> dict[str, int]:
    """The sizes with -1 filled in, checked against the number of devices."""
    written = " x ".join(f"{axis}={size}" for axis, size in asked.items() if size != 1) or "data=1"
    bad = {axis: size for axis, size in asked.items() if not isinstance(size, int) or (size < 1 and size != -1)}
    if bad:
        raise ValueError(f"mesh axis sizes {bad} must be whole numbers from 1, or -1 for 'all devices that are left'")
    free = [axis for axis, size in asked.items() if size == -1]
    fixed = math.prod(size for size in asked.values() if size != -1)
    if len(free) > 1:
        raise ValueError(f"mesh {written}: only one axis may be -1, give all but one of {', '.join(free)} a number")
    if free and num_devices % fixed:
        raise ValueError(
            f"mesh {written}: the {num_devices} devices do not divide by {fixed}; "
            f"choose sizes whose product divides {num_devices}"
        )
    if not free and fixed != num_devices:
        raise ValueError(
            f"mesh {written} needs {fixed} devices and there are {num_devices}; "
            "make the product equal, or set one axis to -1"
        )
    return {axis: num_devices // fixed if size == -1 else size for axis, size in asked.items()}


def arrange(sizes: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices in the shape of the mesh, neighbours in the network side by side.

    Several TPU slices: `stage` or `data`, which send least, cross the slow network between them.
    """
    # Only TPU devices have a slice index, so this one attribute has to be asked for.
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    shape = tuple(sizes.values())
    if num_slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    crossing = next((axis for axis in CROSS_SLICES if sizes[axis] % num_slices == 0), None)
    if crossing is None:
        asked = ", ".join(f"{axis}={sizes[axis]}" for axis in CROSS_SLICES)
        raise ValueError(f"{asked}: one of them must be a multiple of the {num_slices} slices; no other crosses slices")
    between = tuple(num_slices if axis == crossing else 1 for axis in sizes)
    within = tuple(size // count for size, count in zip(shape, between, strict=True))
    return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
