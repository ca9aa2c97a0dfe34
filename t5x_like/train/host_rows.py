"""Which rows of the global batch this process feeds, how they reach its devices, and where all processes stand."""

import functools
import math

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from t5x_like.data.pipeline import Rows
from t5x_like.features import Features


@functools.lru_cache
def rows_of_this_process(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """The range of rows that this process's devices hold."""
    ranges = {
        index[0].indices(batch_size)[:2] for index in sharding.addressable_devices_indices_map((batch_size,)).values()
    }
    start, stop = min(low for low, _ in ranges), max(high for _, high in ranges)
    if sum(high - low for low, high in ranges) != stop - start:
        raise ValueError(f"process {jax.process_index()} holds scattered rows {sorted(ranges)}: reorder the mesh axes")
    return start, stop


def to_devices(batch: Features, sharding: NamedSharding, batch_size: int) -> Features:
    """The global batch of which `batch` holds the rows of this process.

    It travels as one array: on a small model a transfer for each of a batch's arrays costs more than everything else
    that the loop does.
    """
    start, _ = rows_of_this_process(sharding, batch_size)
    leaves, structure = jax.tree.flatten(batch)
    table = np.concatenate([leaf.reshape(len(leaf), -1).view(np.int32) for leaf in leaves], axis=1)

    def piece(index):
        low, high, _ = index[0].indices(batch_size)
        return table[low - start : high - start]

    packed = jax.make_array_from_callback((batch_size, table.shape[1]), sharding, piece)
    kinds = tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
    return jax.tree.unflatten(structure, unpack(packed, kinds))


@functools.partial(jax.jit, static_argnames="kinds")
def unpack(packed: jax.Array, kinds: tuple[tuple[tuple[int, ...], np.dtype], ...]) -> list[jax.Array]:
    """The columns of an int32 table as arrays of their own shape and 32-bit type, bit by bit."""
    arrays, first = [], 0
    for shape, dtype in kinds:
        width = math.prod(shape)
        columns = packed[:, first : first + width].reshape(-1, *shape)
        arrays.append(jax.lax.bitcast_convert_type(columns, dtype))
        first += width
    return arrays


def global_position(rows: Rows, state: dict) -> dict:
    """The positions of all streams, from every process's own: JSON, and the same on every process."""
    if jax.process_count() > 1:
        num_tasks = len(rows.plan.tasks)
        table = np.full((rows.plan.num_streams, 2 + 2 * num_tasks), -1, np.int64)
        for number, (draws, row, tasks) in state["streams"].items():
            table[int(number)] = [draws, row, *np.ravel(tasks)]
        # Two words of 32 bits: JAX would cut a 64-bit integer in half.
        words = multihost_utils.process_allgather(table.view(np.int32))
        table = np.ascontiguousarray(words).view(np.int64).max(axis=0)
        state = {"streams": {str(n): unflatten(row.tolist()) for n, row in enumerate(table)}}
    return {"rows": rows.identity(), **state}


def unflatten(numbers: list[int]) -> list:
    draws, row, *tasks = numbers
    return [draws, row, [list(pair) for pair in zip(tasks[::2], tasks[1::2], strict=True)]]


def check_identity(rows: Rows, saved: dict) -> None:
    """Raises when the data of this run is not what the saved position was counted in."""
    now = rows.identity()
    changed = [
        f"{name} was {saved['rows'].get(name)}, is {now[name]}" for name in now if now[name] != saved["rows"].get(name)
    ]
    if changed:
        raise ValueError(
            "the data is not what the checkpoint was trained on, so its position means nothing: "
            + "; ".join(changed)
            + ". Put it back, or begin a new folder"
        )
