"""The first documents of a task and the examples its objective makes of them, without preparing anything."""

import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import seqio

from t5x_like.data import ragged
from t5x_like.data.examples import Context, Examples, Side
from t5x_like.data.ragged import Documents
from t5x_like.tasks import shards, vocabularies
from t5x_like.tasks.cache_point import Cut, cut
from t5x_like.tasks.sources import Reading
from t5x_like.vocabularies import load

SHOWN_LENGTH = 64


class Preview(NamedTuple):
    """texts: the targets before tokenizing, or None where the task does not keep them."""

    cut: Cut
    documents: Documents
    texts: list[str | None]
    vocabulary: load.Vocabulary
    counts: Counter
    seconds: float


def read(task: seqio.Task, split: str, *, num_documents: int, objective: Any | None = None) -> Preview:
    """The first documents as the steps of `prepare` leave them, and what was dropped on the way to them.

    objective   in place of the task's own
    """
    where, reading = cut(task), Reading(Counter(), [])
    where = where if objective is None else where._replace(objective=objective)
    if split not in task.splits:
        raise ValueError(f"task {task.name} has no split {split!r}: it has {list(task.splits)}")
    names = where.objective.reads
    dataset = shards.offline_dataset(where, split, None, reading)
    shards.check_element_spec(task.name, dataset.element_spec, list(names))
    started = time.monotonic()
    rows = list(shards.numpy_documents(task.name, dataset.take(num_documents), reading))
    if not rows:
        raise ValueError(f"task {task.name}: split {split} has no documents (dropped: {dict(reading.counts)})")
    features = {name: ragged.from_list([row[name] for row in rows]) for name in names}
    spec, file = vocabularies.vocabulary_spec(vocabularies.the_one_vocabulary(task.name, task.output_features))
    return Preview(
        where,
        Documents(features, np.ones(len(rows), bool)),
        [_text(row.get("targets_pretokenized")) for row in rows],
        load.open_vocabulary(spec, file.parent if file else None),
        reading.counts,
        time.monotonic() - started,
    )


def examples(preview: Preview, lengths: dict[str, int], *, seed: int = 0) -> Examples | Side:
    context = Context(lengths, preview.vocabulary.special, preview.vocabulary.size, preview.vocabulary)
    preview.cut.objective.check(context)
    return preview.cut.objective.examples(np.random.default_rng(seed), preview.documents, context)


def default_lengths(task: seqio.Task) -> dict[str, int]:
    """Short rows, for looking at: both sides, or the targets alone."""
    return {name: SHOWN_LENGTH for name in ("inputs", "targets") if name in task.output_features}


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else None
