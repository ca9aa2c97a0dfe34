"""`tasks check`: is a task fit to train on? Lengths, bad records, speed, determinism, sentinels, round trip."""

import hashlib
from typing import NamedTuple

import numpy as np
import seqio

from t5x_like.data import ragged
from t5x_like.data.ragged import Documents
from t5x_like.tasks import preview, registry
from t5x_like.tasks.bridge import columns
from t5x_like.tasks.preview import Preview


class Report(NamedTuple):
    """`problems` are sentences; a task without any is fit to train on."""

    lines: list[str]
    problems: list[str]


def check(
    name: str, *, num_documents: int = 2000, lengths: dict[str, int] | None = None, split: str = "train"
) -> list[Report]:
    """One report per task of a mixture, over the first documents of each."""
    provider = registry.find(name)
    tasks = provider.tasks if isinstance(provider, seqio.Mixture) else [provider]
    return [_check_task(task, num_documents, lengths or preview.default_lengths(task), split) for task in tasks]


def _check_task(task: seqio.Task, num_documents: int, lengths: dict[str, int], split: str) -> Report:
    first = preview.read(task, split, num_documents=num_documents)
    lines, problems = _describe(task, first), []
    again = preview.read(task, split, num_documents=num_documents)
    if _digest(first.documents) != _digest(again.documents):
        problems.append(
            f"{task.name}: two passes over the source gave different documents; a step before the cut is random"
        )
    try:
        made = [preview.examples(first, lengths, seed=seed) for seed in (0, 0, 1)]
    except ValueError as error:
        problems.append(f"{task.name}: {error}")
    else:
        pairs = zip(columns(made[0]).values(), columns(made[1]).values(), strict=True)
        if not all(_same(*pair) for pair in pairs):
            problems.append(f"{task.name}: the objective makes different examples from the same seed")
        lines.append(
            f"  {made[0].num_examples:,} examples at {lengths}, "
            + "".join(_side(name, column) for name, column in columns(made[0]).items())
        )
    problems += _round_trip(task, first)
    return Report(lines, problems)


def _describe(task: seqio.Task, found: Preview) -> list[str]:
    num_tokens = sum(len(feature.values) for feature in found.documents.features.values())
    lines = [f"{task.name}: {len(found.texts):,} documents, {num_tokens / max(found.seconds, 1e-9):,.0f} tokens/s"]
    for name, feature in found.documents.features.items():
        least, low, middle, high, most = np.percentile(feature.lengths, [0, 5, 50, 95, 100]).astype(int).tolist()
        lines.append(
            f"  {name}: tokens per document {least:,} | {low:,} | {middle:,} | {high:,} | {most:,} (0 5 50 95 100 %)"
        )
    bad = {reason: n for reason, n in found.counts.items() if reason != "documents"}
    lines.append(f"  dropped or repaired: {', '.join(f'{n:,} {reason}' for reason, n in bad.items()) or 'nothing'}")
    return lines + [f"  {note}" for note in found.cut.notes]


def _round_trip(task: seqio.Task, found: Preview) -> list[str]:
    """Documents whose ids do not decode to the text they came from."""
    pairs = [
        (text, found.vocabulary.decode(ids))
        for text, ids in zip(found.texts, ragged.to_list(found.documents.features["targets"]), strict=True)
        if text is not None
    ]
    changed = [text for text, decoded in pairs if text != decoded]
    if not changed:
        return []
    return [
        f"{task.name}: {len(changed):,} of {len(pairs):,} documents do not decode to their text: {changed[0][:60]!r}"
    ]


def _side(name: str, side: ragged.Ragged | None) -> str:
    return "" if side is None or not len(side.lengths) else f"{name} {side.lengths.mean():.1f} on average "


def _same(a: ragged.Ragged | None, b: ragged.Ragged | None) -> bool:
    return a is b is None or all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _digest(documents: Documents) -> str:
    digest = hashlib.sha256()
    for feature in documents.features.values():
        digest.update(feature.values.tobytes() + feature.lengths.tobytes())
    return digest.hexdigest()
