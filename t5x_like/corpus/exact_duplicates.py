"""Documents that say the same, word for word, or stand at the same address: all but one go."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

from t5x_like.corpus import duplicate_clusters, survivors
from t5x_like.corpus.documents import column

_NOT_WORDS = re.compile(r"[\W_]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactDuplicates:
    """by     text: as it is; words: without case, punctuation and spaces; url: of the same address ("" is none)
    keep   the policy of `survivors`
    earlier, index   files of keys: of corpora that must not be repeated, and where to write this one's with theirs

    Compared by 128 bits of XXH3: among 10**12 documents a chance match has probability 1.5e-15.
    """

    by: str = "words"
    keep: str = "source"
    earlier: Sequence[str] = ()
    index: str = ""

    def __post_init__(self):
        if self.by not in ("text", "words", "url"):
            raise ValueError(f"by {self.by!r}: choose text, words or url")
        survivors.check_policy(self.keep)
        survivors.check_index(self.earlier, self.index, self.made_by())

    def made_by(self) -> dict:
        """What keys depend on."""
        return {"step": "ExactDuplicates", "by": self.by}

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        values = column(batch, "url" if self.by == "url" else "text")
        if self.by == "words":
            values = [_NOT_WORDS.sub("", text.lower()) for text in values]
        if self.by == "url":  # what has no address is a duplicate of nothing
            places = zip(values, *(column(batch, name) for name in ("file", "row", "text")), strict=True)
            values = [url or f"{file}\0{row}\0{text}" for url, file, row, text in places]
        hashes = [xxhash.xxh3_128_intdigest(value.encode("utf-8", "surrogatepass")) for value in values]
        return pa.table(
            {
                "high": pa.array([value >> 64 for value in hashes], pa.uint64()),
                "low": pa.array([value & 0xFFFFFFFFFFFFFFFF for value in hashes], pa.uint64()),
                **survivors.about(batch),
            }
        )

    def choose(self, keys: pa.Table) -> survivors.Choice:
        keys = survivors.with_earlier(keys, self.earlier)
        columns = survivors.columns_of(keys)
        group = groups_of(keys.column("high").to_numpy(), keys.column("low").to_numpy())
        gone = survivors.all_but_one(columns, group, self.keep)
        if self.index:
            survivors.write_index(keys, gone, self.index, self.made_by())
        told = duplicate_clusters.told_of(columns, group, gone, self.keep, lambda pairs: np.ones(len(pairs)))
        return survivors.Choice(survivors.names_of(columns, gone), {}, told)

    def take_away(self, batch: pa.RecordBatch, names: np.ndarray) -> pa.RecordBatch:
        return survivors.drop_named(batch, names, f"duplicate {self.by}")


def groups_of(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The same number for the same (high, low), int64 [n]."""
    order = np.lexsort((low, high))
    is_new = np.zeros(len(order), bool)
    is_new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(is_new)
    return group
