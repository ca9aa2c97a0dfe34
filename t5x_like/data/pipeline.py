"""Prepared tasks to device batches, in this order: chunk, corrupt, render, mix, pack, batch, prefetch.

`Pipeline` is what a config describes. Its iterator is Grain's: it gives the rows of this host, and its state is a few
KB of JSON that does not know how many hosts there are.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import grain
import numpy as np

from t5x_like.data import examples, mixing, prepared, rendering, streams
from t5x_like.data.examples import Context, Examples, Side
from t5x_like.data.rows import to_features
from t5x_like.features import Features

STATE_FORMAT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Batches of a prepared task or mixture.

    lengths           tokens per row: {"inputs": 512, "targets": 114}, or {"targets": 1024} for one stack alone
    batch_size        rows per step over all hosts
    objective         None: each task's own, as it was registered
    num_streams       virtual streams; rounded down to a divisor of batch_size
    rows_per_block    rows that are packed together: more fill rows better and take more memory and start-up time
    examples_per_row  None: as many as fit; 1: no packing, the rest of every row is padding
    """

    directory: str
    mixture: str
    lengths: dict[str, int]
    batch_size: int
    render: Callable[[Examples | Side], tuple[Side, ...]] = rendering.encoder_decoder
    objective: Any = None
    seed: int = 0
    num_streams: int = 64
    rows_per_block: int = 128
    examples_per_row: int | None = None
    prefetch: int = 2

    def __post_init__(self):
        for name in ("batch_size", "num_streams", "rows_per_block", "examples_per_row"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        sides = [["inputs", "targets"], ["targets"]]
        if sorted(self.lengths) not in sides or min(self.lengths.values()) < 2:
            raise ValueError(
                f"lengths {self.lengths}: give inputs and targets (a decoder: targets alone), each at least 2"
            )

    def tasks(self) -> list[tuple[prepared.PreparedTask, float]]:
        opened = prepared.open_mixture(self.directory, self.mixture)
        rates = mixing.normalise({task.name: rate for task, rate in opened})
        return [(task, rates[task.name]) for task, _ in opened]

    def context(self, task: prepared.PreparedTask) -> Context:
        return Context(self.lengths, task.vocabulary.special, task.vocabulary.size, task.vocabulary)

    def train_rows(self, objectives: Mapping[str, type], *, stage: int = 0) -> "Rows":
        """The endless, shuffled rows of the training split."""
        mixed = [self._mixed(task, rate, "train", objectives) for task, rate in self.tasks()]
        num_streams = max(n for n in range(1, self.num_streams + 1) if self.batch_size % n == 0)
        return Rows(self, self._plan(mixed, num_streams, stage, shuffle_and_repeat=True))

    def held_out_rows(self, task: prepared.PreparedTask, split: str, objectives: Mapping[str, type]) -> "Rows":
        """One pass over a split of one task, in order, with the same corruption every time."""
        mixed = [self._mixed(task, 1.0, split, objectives)]
        return Rows(self, self._plan(mixed, 1, 0, shuffle_and_repeat=False))

    def _mixed(self, task, rate: float, split: str, objectives: Mapping[str, type]) -> streams.MixedTask:
        objective = self.objective or build_objective(task, objectives)
        objective.check(self.context(task))
        return streams.MixedTask(task.split(split), objective, rate)

    def _plan(self, mixed: list, num_streams: int, stage: int, *, shuffle_and_repeat: bool) -> streams.Plan:
        context = self.context(mixed[0].split.task)
        blanks = [self.render(examples.no_examples(task.objective, context)) for task in mixed]
        return streams.Plan(
            tasks=mixed,
            context=context,
            render=self.render,
            blank=tuple(examples.concatenate(sides) for sides in zip(*blanks, strict=True)),
            examples_per_row=self.examples_per_row,
            capacities=np.array([self.lengths[side] for side in sorted(self.lengths)]),
            rows_per_block=self.rows_per_block,
            num_streams=num_streams,
            seed=(self.seed, stage),
            shuffle_and_repeat=shuffle_and_repeat,
        )


class Rows(grain.IterDataset):
    """The global sequence of batches; `of_host` narrows it to a range of the rows of every batch."""

    def __init__(self, pipeline: Pipeline, plan: streams.Plan, rows: tuple[int, int] | None = None):
        super().__init__()
        self.pipeline, self.plan, self.rows = pipeline, plan, rows or (0, pipeline.batch_size)

    def of_host(self, start: int, stop: int) -> "Rows":
        return Rows(self.pipeline, self.plan, (start, stop))

    def __iter__(self) -> "RowsIterator":
        return RowsIterator(self)

    def prefetched(self) -> grain.DatasetIterator:
        dataset = grain.experimental.ThreadPrefetchIterDataset(self, prefetch_buffer_size=self.pipeline.prefetch)
        return iter(dataset)

    def identity(self) -> dict:
        """What has to be the same for a saved position to mean the same rows."""
        return {
            "format": STATE_FORMAT,
            "seed": list(self.plan.seed),
            "batch_size": self.pipeline.batch_size,
            "num_streams": self.plan.num_streams,
            "rows_per_block": self.plan.rows_per_block,
            "lengths": self.pipeline.lengths,
            "examples_per_row": self.pipeline.examples_per_row,
            "tasks": {t.split.task.name: [round(t.rate, 12), describe(t.objective)] for t in self.plan.tasks},
            "data": {task.split.task.name: task.split.digest for task in self.plan.tasks},
        }


class RowsIterator(grain.DatasetIterator):
    """Batches of this host's rows. Row r of a batch comes from stream r // (batch_size / num_streams)."""

    def __init__(self, dataset: Rows):
        super().__init__()
        self._dataset, self._streams = dataset, {}
        self._rows_per_stream = dataset.pipeline.batch_size // dataset.plan.num_streams
        self._begin({})

    def _begin(self, states: dict) -> None:
        start, stop = self._dataset.rows
        owned = range(start // self._rows_per_stream, -(-stop // self._rows_per_stream))
        self._streams = {n: streams.Stream(self._dataset.plan, n, states.get(str(n))) for n in owned}

    def __next__(self) -> Features:
        pieces = [piece for stream in self._streams.values() for piece in stream.take(self._rows_per_stream)]
        if not pieces:
            raise StopIteration
        numbers = np.concatenate([piece.numbers for piece in pieces])
        if missing := self._rows_per_stream * len(self._streams) - len(numbers):
            numbers = np.pad(numbers, ((0, missing), (0, 0)))
        first_owned = min(self._streams) * self._rows_per_stream
        start, stop = self._dataset.rows
        return to_features(numbers[start - first_owned : stop - first_owned], pieces[0].sides)

    def get_state(self) -> "State":
        return State(streams={str(n): stream.state() for n, stream in self._streams.items()})

    def set_state(self, state: dict) -> None:
        self._begin(state["streams"])


class State(dict):
    """A position that nobody changes. Grain takes a deep copy behind every batch, a sixth of the time of a batch."""

    def __deepcopy__(self, memo: dict) -> "State":
        return self


def build_objective(task: prepared.PreparedTask, objectives: Mapping[str, type]) -> Any:
    """The objective that the task was registered with; its name is looked up in `objectives` and nowhere else."""
    spec = task.manifest["objective"]
    if spec["name"] not in objectives:
        raise ValueError(f"task {task.name} wants objective {spec['name']!r}, known are {sorted(objectives)}")
    return objectives[spec["name"]](**spec["fields"])


def describe(objective: Any) -> dict:
    """An objective as data: {"name", "fields"}."""
    return {"name": type(objective).__name__, "fields": attrs.asdict(objective)}


def held_out_batches(rows: Rows) -> Iterator[Features]:
    """One pass over `rows`; the last batch is filled up with empty rows."""
    yield from iter(rows)
