"""What lies on each device before the first step: one row per kind of parameter, and the totals."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from rich.table import Table


class Row(NamedTuple):
    """Parameters that differ only in the number of their layer."""

    name: str  # "decoder/layers/*/mlp/kernel"
    count: int
    shape: tuple[int, ...]
    dtype: str
    spec: str
    parameters: int
    bytes_per_device: int


def bytes_per_device(array: jax.Array | jax.ShapeDtypeStruct) -> int:
    """The bytes of the largest piece that one device holds."""
    return math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize


def placement_rows(params: Mapping[str, jax.Array | jax.ShapeDtypeStruct]) -> list[Row]:
    """Rows in the order of the parameters; shapes with shardings will do, so it works before anything exists."""
    groups: dict[tuple, list] = {}
    for name, array in params.items():
        kind = (re.sub(r"\d+", "*", name), array.shape, str(array.dtype), spec_text(array.sharding))
        groups.setdefault(kind, []).append(array)
    return [
        Row(*kind[:1], len(arrays), *kind[1:], math.prod(kind[1]) * len(arrays), sum(map(bytes_per_device, arrays)))
        for kind, arrays in groups.items()
    ]


def spec_text(sharding: jax.sharding.Sharding) -> str:
    """'fsdp, tensor' for a split array, 'whole' for one that every device holds entirely."""
    if sharding.is_fully_replicated:
        return "whole"
    sizes = sharding.mesh.shape
    names = [(entry,) if isinstance(entry, str) else entry or () for entry in sharding.spec]
    return ", ".join("+".join(name for name in entry if sizes[name] > 1) or "-" for entry in names)


def placement_table(params: Mapping[str, Any], opt_state: Any) -> Table:
    """The printable table; `opt_state` is any pytree of arrays or shapes with shardings."""
    optimizer_bytes = sum(map(bytes_per_device, jax.tree.leaves(opt_state)))
    rows = placement_rows(params)
    total_bytes = sum(row.bytes_per_device for row in rows)
    table = Table(title="Parameters", title_justify="left", show_footer=True, box=None, padding=(0, 2, 0, 0))
    table.add_column("name", footer="parameters\noptimizer\ntogether", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("split over", no_wrap=True)
    table.add_column("count", justify="right", footer=f"{sum(row.parameters for row in rows):,}", no_wrap=True)
    footer = "\n".join(map(human_bytes, (total_bytes, optimizer_bytes, total_bytes + optimizer_bytes)))
    table.add_column("per device", justify="right", footer=footer, no_wrap=True)
    for row in rows:
        name = row.name if row.count == 1 else f"{row.name} x{row.count}"
        shape = "x".join(map(str, row.shape)) or "scalar"
        shape += "" if row.dtype == "float32" else f" {row.dtype}"
        table.add_row(name, shape, row.spec, f"{row.parameters:,}", human_bytes(row.bytes_per_device))
    return table


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable: the loop returns at TiB")
