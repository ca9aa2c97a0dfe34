"""A run before anybody rents anything: compiled for a mesh that need not be there, and read.

Every array is a shape. `topology` names TPU chips that are not here ("v5e:16x16", with libtpu installed); without it
the mesh is that of the devices of this process, simulated ones too.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from t5x_like.features import Features
from t5x_like.partitioning import axis_rules
from t5x_like.partitioning.mesh import on_mesh
from t5x_like.partitioning.placement import bytes_per_device
from t5x_like.planning import collectives, roofline
from t5x_like.train.state import plan_params, plan_state
from t5x_like.train.step import make_train_step

NOT_GROUPS = ("layers", "cycle", "stack")


@dataclasses.dataclass(frozen=True)
class Report:
    """All bytes are of one device; `temporaries` are the compiler's, and on a CPU no guide to other devices."""

    mesh: Mesh
    groups: dict[str, int]
    params_bytes: int
    gradients_bytes: int  # in float32, where the optimizer's state lies; among the temporaries
    optimizer_bytes: int
    host_bytes: int  # of the optimizer's state, in the host's memory and not the device's
    arguments: int
    temporaries: int
    peak: int
    compile_seconds: float
    work: roofline.Work
    tokens: int
    collectives: list[collectives.Collective]

    def seconds(self, device: roofline.Device) -> roofline.Seconds:
        touched = self.arguments + 2 * self.temporaries
        return roofline.seconds_of(device, self.work, self.mesh.size, touched, self.collectives)


def plan(run: dict[str, Any], devices: list | None) -> Report:
    """`run`: the arguments of `train`, as a configuration gives them."""
    make_mesh: Callable[..., Mesh] = run["mesh"]
    mesh, data, rules = make_mesh(devices=devices), run["data"], run["axis_rules"]
    optimizer = run["optimizer"]
    state = plan_state(run["model"], optimizer, mesh, rules, run["optimizer_rules"])
    step = make_train_step(
        state.graphdef,
        run["loss"],
        optimizer,
        num_microbatches=run["num_microbatches"],
        learning_rate=run["learning_rate"],
        gradients=run["gradients"],
    )
    places = axis_rules.batch_sharding(mesh, rules, data.batch_size)
    batch = abstract_batch(data.lengths, data.batch_size, places)
    key = jax.eval_shape(lambda: jax.random.key(0))
    began = time.monotonic()
    compiled = compiled_or_refused(jax.jit(on_mesh(mesh, step), donate_argnums=0).lower(state.abstract, batch, key))
    seconds, memory = time.monotonic() - began, compiled.memory_analysis()
    sums = plan_params(run["model"], mesh, run["optimizer_rules"] or rules)[1].values()
    params, leaves = state.abstract.params, jax.tree.leaves(state.abstract.opt_state)
    return Report(
        mesh=mesh,
        groups=parameters_by_group(params),
        params_bytes=sum(map(bytes_per_device, params.values())),
        gradients_bytes=sum(bytes_per_device(one.update(dtype=jnp.float32)) for one in sums),
        optimizer_bytes=sum(bytes_per_device(leaf) for leaf in leaves if not waits(leaf)),
        host_bytes=sum(bytes_per_device(leaf) for leaf in leaves if waits(leaf)),
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        compile_seconds=seconds,
        work=roofline.work_of(params, data.lengths, data.batch_size),
        tokens=data.batch_size * sum(data.lengths.values()),
        collectives=collectives.collectives_of(compiled.as_text(), mesh),
    )


def waits(leaf: jax.ShapeDtypeStruct) -> bool:
    return leaf.sharding.memory_kind == "pinned_host"


def compiled_or_refused(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """TPU compilers refuse what does not fit; their sentence becomes ours."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        said = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in said:
            raise
        raise ValueError(
            f"it does not fit on a device ({said[:250]}): split over more of them, take smaller rows or more "
            "micro-batches, keep less (Decoder.remat), or another attention kernel (Attention.kernel = @chunked)"
        ) from None


def abstract_batch(lengths: dict[str, int], batch_size: int, places: NamedSharding) -> Features:
    """The shapes of packed rows: one stack's, or a decoder's with its encoder's."""

    def side(length: int, predicts: bool) -> Features:
        def array(dtype, *more) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((batch_size, length, *more), dtype, sharding=places)

        whole = array(jnp.int32)
        predicted = (whole, array(jnp.float32)) if predicts else (None, None)
        return Features(whole, *predicted, whole, array(jnp.int32, 1), whole)

    decoder = side(lengths["targets"], True)
    return decoder._replace(encoder=side(lengths["inputs"], False)) if "inputs" in lengths else decoder


def parameters_by_group(params: dict[str, jax.ShapeDtypeStruct]) -> dict[str, int]:
    """How many there are under each of the first parts of a name: embedding, attention, mlp, ..."""
    groups: dict[str, int] = {}
    for name, param in params.items():
        parts = [part for part in name.split("/")[:-1] if not part.isdigit() and part not in NOT_GROUPS]
        group = "/".join(parts[:2]) or name
        groups[group] = groups.get(group, 0) + math.prod(param.shape)
    return dict(sorted(groups.items(), key=lambda item: -item[1]))


def topology_devices(name: str, num_slices: int = 1) -> list:
    """The chips of a TPU topology that need not be here, e.g. v5e:16x16, v5p:8x8x8; of several slices of that shape."""
    import os

    from jax.experimental import topologies

    if num_slices < 1:
        raise ValueError(f"num_slices {num_slices} must be at least 1")
    # It asks nobody which machine this is, and compiles beside another process that does.
    told = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    told |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
    for variable, value in told.items():
        os.environ.setdefault(variable, value)
    made = {"wrap": closed_dims(name)} | ({"num_slices": num_slices} if num_slices > 1 else {})
    try:
        return list(np.ravel(topologies.get_topology_desc(platform="tpu", topology_name=name, **made).devices))
    except Exception as error:
        raise ValueError(
            f"topology {name!r}: {str(error).splitlines()[0][:200]}; it is written like v5e:16x16 and needs libtpu "
            "(`make .venv/libtpu/ready`, then PYTHONPATH=.venv/libtpu; or `pip install libtpu`)"
        ) from None


def closed_dims(topology: str) -> tuple[bool, bool, bool]:
    """In which dimensions the chips of a slice lie in a ring and not in a line: the compiler is told nothing else.

    v5e and v6e: in those of 16 chips. v4 and v5p: in all, if each is a multiple of 4 (cloud.google.com/tpu/docs/v5p).
    """
    sizes = [int(size) for size in topology.partition(":")[2].split("x") if size.isdigit()]
    if len(sizes) == 3:
        return (all(size % 4 == 0 for size in sizes),) * 3
    return (*(size == 16 for size in [*sizes, 1, 1][:2]), False)
