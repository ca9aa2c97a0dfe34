"""Which meshes, what to keep for the backward pass, how many rows: all of them compiled, and the ones worth having.

A choice is worth having if no other takes less memory and less time a token. Its lines are bindings to paste behind a
configuration; they are also how it was compiled.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t5x_like.partitioning.mesh import MESH_AXES

# What is kept for the backward pass -> operations of a step over those of the model: without anything the forward pass
# is done twice, a third of three; without all but the matmuls only what costs next to nothing is.
REMATS = {"save_everything": 1.0, "keep_matmuls": 1.0, "save_nothing": 4 / 3}


class Choice(NamedTuple):
    """sizes: of the axes that are searched, in MESH_AXES' order; remat: a name of a config; rows of a batch."""

    sizes: tuple[tuple[str, int], ...]
    remat: str
    rows: int

    def lines(self, model: str) -> list[str]:
        """Bindings; `model` is the name of the model's class in a config."""
        sizes = {axis: 1 for axis in MESH_AXES} | dict(self.sizes)
        return [
            "train.mesh = @make_mesh",
            *(f"make_mesh.{axis} = {size}" for axis, size in sizes.items()),
            f"{model}.remat = @{self.remat}",
            f"Pipeline.batch_size = {self.rows}",
        ]

    def __str__(self) -> str:
        axes = " x ".join(f"{axis} {size}" for axis, size in self.sizes if size > 1) or "one device"
        return f"{axes}, {self.remat}, {self.rows} rows"


class Found(NamedTuple):
    """peak: bytes on a device; seconds: of a step, at least and at most; tokens of a step."""

    choice: Choice
    peak: int
    least: float
    most: float
    tokens: int

    @property
    def cost(self) -> tuple[float, float]:
        """What is to be small: bytes on a device, seconds a token where nothing overlaps."""
        return self.peak, self.most / self.tokens


def choices(
    num_devices: int, *, axes: Sequence[str], rows: Sequence[int], remats: Sequence[str] = tuple(REMATS)
) -> Iterator[Choice]:
    """Every way to write the number of devices as a product over `axes`, with every remat and number of rows.

    Where the rows do not divide over the devices that hold rows, a choice is left out.
    """
    if unknown := sorted(set(axes) - set(MESH_AXES)):
        raise ValueError(f"axes {unknown}: a mesh has {', '.join(MESH_AXES)}")
    if not axes or not rows or min(rows) < 1:
        raise ValueError(f"axes {list(axes)} and rows {list(rows)}: give at least one of each, rows from 1")
    ordered = [axis for axis in MESH_AXES if axis in axes]
    for sizes in factorisations(num_devices, len(ordered)):
        named = tuple(zip(ordered, sizes, strict=True))
        holders = 1
        for axis, size in named:
            holders *= size if axis in ("data", "fsdp", "expert") else 1
        for remat, count in itertools.product(remats, rows):
            if count % holders == 0:
                yield Choice(named, remat, count)


def factorisations(number: int, count: int) -> Iterator[tuple[int, ...]]:
    """Every ordered way to write `number` as a product of `count` whole numbers."""
    if count == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in factorisations(number // first, count - 1):
                yield (first, *rest)


def front(found: Sequence[Found]) -> list[Found]:
    """Those that no other beats in memory and in time a token, least memory first; of equal ones the first."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: one.cost):
        if not kept or one.cost[1] < kept[-1].cost[1]:
            kept.append(one)
    return kept
