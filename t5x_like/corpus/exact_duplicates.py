"""Documents that say the same, word for word, or stand at the same address: all but one go."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import xxhash

from t5x_like.corpus import survivors
from t5x_like.corpus.documents import column

_NOT_WORDS = re.compile(r"[\W_]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactDuplicates:
    """by     text: as it is; words: without case, punctuation and spaces; url: of the same address ("" is none)
    keep   the policy of `survivors`

    Compared by 128 bits of XXH3: among 10**12 documents a chance match has probability 1.5e-15.
    """

    by: str = "words"
    keep: str = "earliest"

    def __post_init__(self):
        if self.by not in ("text", "words", "url"):
            raise ValueError(f"by {self.by!r}: choose text, words or url")
        survivors.check_policy(self.keep)

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        values = column(batch, "url" if self.by == "url" else "text")
        if self.by == "words":
            values = [_NOT_WORDS.sub("", text.lower()) for text in values]
        hashes = [xxhash.xxh3_128_intdigest(value.encode("utf-8", "surrogatepass")) for value in values]
        if self.by == "url":  # what has no address is a duplicate of nothing
            places = zip(values, column(batch, "file"), column(batch, "row"), strict=True)
            hashes = [h if url else (file << 64) + row for h, (url, file, row) in zip(hashes, places, strict=True)]
        lengths = [len(text) for text in column(batch, "text")]
        return pa.table(
            {
                "high": pa.array([value >> 64 for value in hashes], pa.uint64()),
                "low": pa.array([value & 0xFFFFFFFFFFFFFFFF for value in hashes], pa.uint64()),
                "file": pa.array(column(batch, "file"), pa.int32()),
                "row": pa.array(column(batch, "row"), pa.int64()),
                "length": pa.array(lengths, pa.int64()),
                "quality": pa.array(column(batch, "quality"), pa.float32()),
            }
        )

    def choose(self, keys: pa.Table) -> tuple[np.ndarray, dict[str, int]]:
        columns = {name: keys.column(name).to_numpy() for name in keys.column_names}
        pairs = np.stack([columns["high"], columns["low"]], axis=1)
        _, group = np.unique(pairs, axis=0, return_inverse=True)
        gone = survivors.all_but_one(columns, group.ravel(), self.keep)
        return survivors.names_of(columns, gone), {f"duplicate {self.by}": len(gone)}
