"""What a model says of documents, and what goes by it: fixed limits, percentiles of each language, named buckets."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from t5x_like.corpus import survivors
from t5x_like.corpus.documents import column, drop, scores_of, with_column, with_scores

_GROUPS = ("language", "source", "domain")
_BUCKET = np.dtype([*survivors.NAME.descr, ("number", np.int32)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Writes what `model` says of every text as the score `name`; drops nothing.

    model     a trained one (NgramPerplexity, LinearQuality, ...) or one from a file; it has scores(texts)
    language  only documents in this one are measured; empty: all
    quality   'higher' or 'lower': the document's quality for `keep = 'best'` of duplicates is this score, or minus it
    """

    model: Any
    name: str
    language: str = ""
    quality: str = ""

    def __post_init__(self):
        if not self.name or "/" in self.name:
            raise ValueError(f"score name {self.name!r}: give a word without '/'")
        if self.quality not in ("", "higher", "lower"):
            raise ValueError(f"quality {self.quality!r}: say which is better, 'higher' or 'lower', or leave it empty")

    @property
    def measures(self) -> tuple[str, ...]:
        """The scores that it writes."""
        return (self.name,)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        measured = np.array([self.language in ("", language) for language in column(batch, "language")], bool)
        texts = [text for text, one in zip(column(batch, "text"), measured.tolist(), strict=True) if one]
        values = np.full(len(batch), np.nan)
        values[measured] = self.model.scores(texts)
        if self.quality:
            ours = np.array(column(batch, "quality"), np.float64)
            sign = 1 if self.quality == "higher" else -1
            batch = with_column(batch, "quality", np.where(measured, sign * values, ours))
        return with_scores(batch, self.name, values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepBetween:
    """Drops documents whose score is below `low` or above `high`; one without that score stays."""

    score: str
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self):
        if not self.low <= self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: nothing would be kept")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        values = scores_of(batch, self.score).tolist()
        low, high = f"{self.score} below {self.low:g}", f"{self.score} above {self.high:g}"
        return drop(batch, [low if value < self.low else high if value > self.high else None for value in values])


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepPercentiles:
    """Keeps, of each language, the documents whose score is from the percentile `low` to the percentile `high`.

    per   'language', 'source' or 'domain': documents that are alike in this are ranked among themselves; '': all
    Percentiles are of documents, with linear interpolation (numpy.percentile); a document without the score stays.
    """

    score: str
    low: float = 0.0
    high: float = 100.0
    per: str = "language"

    def __post_init__(self):
        check_per(self.per)
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles {self.low} and {self.high}: low < high, both from 0 to 100")

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        return score_keys(batch, self.score, self.per)

    def choose(self, keys: pa.Table) -> survivors.Choice:
        values, gone = keys.column("score").to_numpy(), np.zeros(len(keys), bool)
        for members in groups_of(keys):
            low, high = np.percentile(values[members], [self.low, self.high])
            gone[members] = (values[members] < low) | (values[members] > high)
        return survivors.Choice(survivors.names_of(names_in(keys), np.flatnonzero(gone)), {})

    def take_away(self, batch: pa.RecordBatch, names: np.ndarray) -> pa.RecordBatch:
        return survivors.drop_named(batch, names, f"{self.score} outside percentiles {self.low:g} to {self.high:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buckets:
    """Writes the number of the bucket of a score as a score of its own, `name`; drops nothing.

    percentiles   of each language, where the next bucket begins: (30, 60) is CCNet's head (0), middle (1) and tail (2)
                  of perplexity (arXiv:1911.00359, section 4.2)
    """

    score: str
    name: str = "bucket"
    percentiles: Sequence[float] = (30.0, 60.0)
    per: str = "language"

    def __post_init__(self):
        check_per(self.per)
        steps = [0.0, *self.percentiles, 100.0]
        if any(one >= following for one, following in itertools.pairwise(steps)):
            raise ValueError(f"percentiles {list(self.percentiles)} must ascend, between 0 and 100")

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        return score_keys(batch, self.score, self.per)

    def choose(self, keys: pa.Table) -> survivors.Choice:
        values, number = keys.column("score").to_numpy(), np.full(len(keys), -1, np.int32)
        for members in groups_of(keys):
            limits = np.percentile(values[members], self.percentiles)
            number[members] = np.searchsorted(limits, values[members], side="right")
        chosen = np.empty(len(keys), _BUCKET)
        chosen["file"], chosen["row"] = (keys.column(name).to_numpy() for name in ("file", "row"))
        chosen["number"] = number
        told = {f"{self.name} {one}": int((number == one).sum()) for one in range(len(self.percentiles) + 1)}
        return survivors.Choice(chosen[number >= 0], told)

    def take_away(self, batch: pa.RecordBatch, names: np.ndarray) -> pa.RecordBatch:
        number = dict(zip(names["row"].tolist(), names["number"].tolist(), strict=True))
        values = [number.get(row, np.nan) for row in column(batch, "row")]
        return with_scores(batch, self.name, np.array(values, np.float64))


def check_per(per: str) -> None:
    if per and per not in _GROUPS:
        raise ValueError(f"per {per!r}: choose one of {', '.join(_GROUPS)}, or '' for all documents together")


def score_keys(batch: pa.RecordBatch, score: str, per: str) -> pa.Table:
    """Name, score and group of every document of a batch."""
    return pa.table(
        {
            "file": pa.array(column(batch, "file"), pa.int32()),
            "row": pa.array(column(batch, "row"), pa.int64()),
            "score": pa.array(scores_of(batch, score), pa.float64()),
            "group": pa.array(column(batch, per) if per else [""] * len(batch), pa.large_string()),
        }
    )


def groups_of(keys: pa.Table) -> list[np.ndarray]:
    """Indices of the documents of each group that have the score."""
    scored = ~np.isnan(keys.column("score").to_numpy())
    groups = keys.column("group").combine_chunks().dictionary_encode()
    number = groups.indices.to_numpy()
    return [
        members for one in range(len(groups.dictionary)) if len(members := np.flatnonzero(scored & (number == one)))
    ]


def names_in(keys: pa.Table) -> dict[str, np.ndarray]:
    return {name: keys.column(name).to_numpy() for name in ("file", "row")}
