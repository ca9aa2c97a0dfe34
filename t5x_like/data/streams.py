"""One virtual stream: an endless, deterministic sequence of packed rows, made of every V-th document of each task.

The global order of samples is the interleaving of V such streams, and a stream knows nothing of hosts, of workers or
of the other streams. So any number of hosts can share them out, and the position is a few integers per stream:

  draws    how many examples were drawn before the current block of rows
  row      how many rows of this block are already used
  tasks    per task, (block of documents, examples of it already drawn) when the current block began

A block of rows is rebuilt from these numbers alone, random draws included.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import grain
import numpy as np

from t5x_like.data import examples, mixing, packing
from t5x_like.data.examples import Context, Examples, Side
from t5x_like.data.prepared import PreparedSplit
from t5x_like.data.rows import Table, lay_out


class MixedTask(NamedTuple):
    split: PreparedSplit
    objective: Any
    rate: float


class Plan(NamedTuple):
    """What every stream of a pipeline shares. `seed` holds the run's seed and the stage.

    blank             sides without an example, whose arrays are those of all tasks together: what a row consists of
    examples_per_row  at most so many, or None
    """

    tasks: list[MixedTask]
    context: Context
    render: Callable[[Examples | Side], tuple[Side, ...]]
    blank: tuple[Side, ...]
    examples_per_row: int | None
    capacities: np.ndarray
    rows_per_block: int
    num_streams: int
    seed: tuple[int, ...]
    shuffle_and_repeat: bool


class TaskExamples:
    """The examples that one task gives to one stream; `position` = (block of documents, examples used of it)."""

    def __init__(self, plan: Plan, task: MixedTask, stream: int, position: tuple[int, int]):
        self._plan, self._task, self._stream, self.position = plan, task, stream, position
        block_tokens = plan.rows_per_block * plan.capacities.sum()
        self._records_per_block = max(1, round(block_tokens / task.split.tokens_per_record))
        self._seed = (*plan.seed, zlib.crc32(task.split.task.name.encode()))
        self._loaded: tuple[int, list[Side], int] | None = None

    def draw(self, count: int) -> list[list[Side]]:
        """The next `count` examples, as parts of rendered sides; fewer only when a task that does not repeat ends."""
        parts = []
        while count:
            block, used = self.position
            sides, available = self._block(block)
            if sides is None:
                break
            taken = min(count, available - used)
            if taken:
                parts.append([side.cut(used, used + taken) for side in sides])
            count -= taken
            self.position = (block, used + taken) if used + taken < available else (block + 1, 0)
        return parts

    def _block(self, block: int) -> tuple[list[Side] | None, int]:
        if self._loaded is None or self._loaded[0] != block:
            records = self._records(block)
            if not len(records):
                return None, 0
            rng = np.random.default_rng((*self._seed, self._stream, block))
            made = self._task.objective.examples(rng, self._task.split.read(records), self._plan.context)
            sides = self._plan.render(made.take(rng.permutation(made.num_examples)))
            self._loaded = block, list(sides), made.num_examples
        return self._loaded[1], self._loaded[2]

    def _records(self, block: int) -> np.ndarray:
        """Which records this block of documents holds: a fresh permutation of all of them in every epoch."""
        size = len(self._task.split)
        first, count = block * self._records_per_block, self._records_per_block
        places = self._stream + self._plan.num_streams * np.arange(first, first + count)
        if not self._plan.shuffle_and_repeat:
            return places[places < size]
        shuffle = grain.experimental.index_shuffle
        epochs = {epoch: _epoch_seed(self._seed, epoch) for epoch in np.unique(places // size).tolist()}
        return np.array(
            [shuffle(p % size, max_index=size - 1, seed=epochs[p // size], rounds=4) for p in places.tolist()], np.int64
        )


class Stream:
    """Rows of one stream, see the head of the file."""

    def __init__(self, plan: Plan, number: int, state: list | None = None):
        self._plan, self._number = plan, number
        draws, row, positions = state or (0, 0, [(0, 0)] * len(plan.tasks))
        self._draws, self._row = draws, row
        self._tasks = [
            TaskExamples(plan, task, number, tuple(position))
            for task, position in zip(plan.tasks, positions, strict=True)
        ]
        self._rows: Table | None = None
        self._state_of_block = (draws, tuple(tuple(position) for position in positions))

    def state(self) -> tuple[int, int, tuple[tuple[int, int], ...]]:
        """(draws, row, (block, used) per task): plain integers, which JSON keeps as lists."""
        draws, positions = self._state_of_block
        return draws, self._row, positions

    def take(self, count: int) -> list[Table]:
        """The next `count` rows as pieces to join; fewer only at the end of tasks that do not repeat."""
        pieces = []
        while count:
            if self._rows is None:
                self._rows = self._build()
            if self._rows is None:
                break
            numbers, sides = self._rows
            piece = numbers[self._row : self._row + count]
            if len(piece):
                pieces.append(Table(piece, sides))
            count -= len(piece)
            self._row += len(piece)
            if self._row >= len(numbers):
                self._begin_next_block()
        return pieces

    def _begin_next_block(self) -> None:
        self._row, self._rows = 0, None
        self._state_of_block = (self._draws, tuple(task.position for task in self._tasks))

    def _build(self) -> Table | None:
        """Draws examples for about `rows_per_block` rows, packs them, shuffles the rows; None when nothing is left."""
        block_start = self._draws
        parts = self._draw_until_full()
        if not parts:
            return None
        sides = [examples.concatenate(column) for column in zip(self._plan.blank, *parts, strict=True)]
        lengths = np.stack([side.lengths for side in sides], axis=1)
        rows = packing.plan_rows(lengths, self._plan.capacities, self._plan.examples_per_row)
        num_rows = int(rows.max()) + 1
        rng = np.random.default_rng((*self._plan.seed, self._number, block_start, 1))
        if self._plan.shuffle_and_repeat:
            rows = rng.permutation(num_rows)[rows]
        return lay_out(sides, rows, num_rows, self._plan.capacities)

    def _draw_until_full(self) -> list[list[Side]]:
        plan = self._plan
        num_rows = plan.rows_per_block
        if self._draws == 0:  # so that the streams do not all build a block before the same step
            num_rows = -(-num_rows * (self._number + 1) // plan.num_streams)
        wanted = num_rows * np.append(plan.capacities, plan.examples_per_row or np.inf)
        rates = np.array([task.rate for task in plan.tasks])
        phases = np.random.default_rng((*plan.seed, self._number)).random(len(plan.tasks))
        draws_per_round = max(1, num_rows // 2)
        parts, drawn = [], np.zeros(len(wanted), np.int64)  # tokens of each side, and examples
        while (drawn < wanted).all():
            counts = mixing.draws_between(rates, phases, self._draws, self._draws + draws_per_round)
            self._draws += draws_per_round
            new = [part for task, count in zip(self._tasks, counts.tolist(), strict=True) for part in task.draw(count)]
            if not new and counts.sum():
                break
            for part in new:
                drawn += [*(side.lengths.sum() for side in part), part[0].num_examples]
            parts += new
        return parts


def _epoch_seed(seed: tuple[int, ...], epoch: int) -> int:
    return int(np.random.SeedSequence((*seed, epoch)).generate_state(1)[0])
