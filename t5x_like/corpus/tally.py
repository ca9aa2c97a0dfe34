"""What a recipe did, counted while it runs: per reason, per step by source and language, per score; with examples.

Every part has a tally of its own, written beside its output, and they are added in the order of parts, so that all but
the seconds is the same whatever the workers.
"""

import collections
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from t5x_like.corpus.documents import column, scores_of

EXAMPLES = 3
EXAMPLE_CHARACTERS = 200
BIN = math.log(1.05)  # a bin of a score is 5 % wide
READ = "read"
WHAT = ("documents", "characters", "bytes")


def _totals() -> Any:
    return collections.defaultdict(lambda: collections.defaultdict(lambda: [0] * len(WHAT)))


@dataclasses.dataclass
class Tally:
    """counts    how many documents by what happened: "C4: too few sentences", "read"
    examples  for each reason the beginnings of the first documents that it took away
    kept      for each step those of the first that it kept
    funnel    after each step, for each "source, language", how many documents, characters and bytes of UTF-8 are left
    labels    after each step, how many documents are left with each label
    scores    for each score, each language and each bin (`bin_of`): how many documents, and the beginning of the first
    clusters  for each step that finds duplicates, what `duplicate_clusters` tells of them
    seconds   of CPU, for reading and for each step

    Steps are named with their place in the recipe: "3 C4".
    """

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    kept: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    funnel: dict[str, dict[str, list[int]]] = dataclasses.field(default_factory=_totals)
    labels: dict[str, collections.Counter] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    scores: dict[str, dict[str, dict[str, list]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(lambda: collections.defaultdict(dict))
    )
    clusters: dict[str, dict] = dataclasses.field(default_factory=dict)
    seconds: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def dropped(self, step: str, batch: pa.RecordBatch) -> None:
        for reason, text in zip(column(batch, "reason"), column(batch, "text"), strict=True):
            name = f"{step}: {reason}"
            self.counts[name] += 1
            if len(self.examples[name]) < EXAMPLES:
                self.examples[name].append(text[:EXAMPLE_CHARACTERS])

    def left(self, step: str, batch: pa.RecordBatch) -> None:
        """`batch` is what is left after a step."""
        texts = batch.column(batch.schema.get_field_index("text"))
        sizes = {
            "source": batch.column(batch.schema.get_field_index("source")),
            "language": batch.column(batch.schema.get_field_index("language")),
            "characters": pa.compute.utf8_length(texts),
            "bytes": pa.compute.binary_length(texts),
        }
        sums = [("characters", "count"), ("characters", "sum"), ("bytes", "sum")]
        for row in pa.table(sizes).group_by(["source", "language"]).aggregate(sums).to_pylist():
            found = self.funnel[step][f"{row['source']}, {row['language']}"]
            for place, (name, how) in enumerate(sums):
                found[place] += row[f"{name}_{how}"]
        for one in pa.compute.value_counts(batch.column(batch.schema.get_field_index("labels")).flatten()).to_pylist():
            self.labels[step][one["values"]] += one["counts"]
        missing = EXAMPLES - len(self.kept[step])
        self.kept[step] += [text[:EXAMPLE_CHARACTERS] for text in column(batch.slice(0, missing), "text")]

    def measured(self, score: str, batch: pa.RecordBatch) -> None:
        values = scores_of(batch, score)
        rows = zip(values.tolist(), column(batch, "language"), column(batch, "text"), strict=True)
        for value, language, text in rows:
            if not math.isnan(value):
                bins = self.scores[score][language]
                found = bins.setdefault(str(bin_of(value)), [0, text[:EXAMPLE_CHARACTERS]])
                found[0] += 1

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - started

    def add(self, other: "Tally") -> None:
        self.counts.update(other.counts)
        self.seconds.update(other.seconds)
        self.clusters.update(other.clusters)
        for own, more in ((self.examples, other.examples), (self.kept, other.kept)):
            for name, texts in more.items():
                own[name] += texts[: EXAMPLES - len(own[name])]
        for step, groups in other.funnel.items():
            for group, sizes in groups.items():
                own = self.funnel[step][group]
                own[:] = np.add(own, sizes).tolist()
        for step, labels in other.labels.items():
            self.labels[step].update(labels)
        for score, languages in other.scores.items():
            for language, bins in languages.items():
                for number, (count, text) in bins.items():
                    self.scores[score][language].setdefault(number, [0, text])[0] += count

    def as_json(self) -> dict:
        """Dictionaries, lists, numbers and strings alone, sorted by name."""
        return json.loads(json.dumps(vars(self), sort_keys=True))


def from_json(told: dict) -> Tally:
    tally = Tally()
    tally.add(Tally(**told))
    return tally


def by_step(told: Tally) -> Iterator[tuple[str, list[int]]]:
    """(step, what is left after it over all sources and languages), in the order of the recipe."""
    for step in sorted(told.funnel, key=place_of):
        yield step, [sum(column) for column in zip(*told.funnel[step].values(), strict=True)]


def place_of(step: str) -> int:
    """Of a step's name in a tally."""
    return 0 if step == READ else int(step.split(" ")[0])


def bin_of(value: float) -> int:
    """Bins of equal width in the logarithm; 0 is of values around 0, negative ones are of negative values."""
    if abs(value) < 1e-6:
        return 0
    number = math.floor(math.log(abs(value) / 1e-6) / BIN) + 1
    return number if value > 0 else -number


def lower_edge(number: int) -> float:
    """The smallest size of a value in the bin (of a negative one, the largest value)."""
    return 0.0 if number == 0 else math.copysign(1e-6 * math.exp((abs(number) - 1) * BIN), number)
