"""Texts of like length together, in rows of a few fixed lengths: each length is one program to compile.

  lengths     3 90 12 40 5        boundaries (16, 64, 128), 2 rows a batch
  batches     rows of 16: texts 0 2, then 4      rows of 64: text 3      rows of 128: text 1

Training packs texts instead (`packing`), which leaves next to nothing empty; this is for texts that stand alone, as in
scoring, and for rows whose number of texts must not vary.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Bucket(NamedTuple):
    """A batch: the numbers of its texts, int64, and the length of its rows."""

    texts: np.ndarray
    length: int


def bucket_of(lengths: np.ndarray, boundaries: Sequence[int]) -> np.ndarray:
    """The smallest boundary that holds each length, int64 [n]. Raises where none does."""
    edges = np.asarray(boundaries, np.int64)
    if not len(edges) or (np.diff(edges) <= 0).any() or edges[0] < 1:
        raise ValueError(f"boundaries {list(boundaries)} must rise, from 1 or more")
    if len(lengths) and (longest := int(np.max(lengths))) > edges[-1]:
        raise ValueError(
            f"a text of {longest} tokens is longer than the last boundary, {edges[-1]}: cut it, or add one"
        )
    return edges[np.searchsorted(edges, lengths)]


def batches_by_length(lengths: np.ndarray, boundaries: Sequence[int], batch_size: int) -> Iterator[Bucket]:
    """Every text once, short ones first, in its order among those of its bucket; a bucket's last batch may be short."""
    buckets = bucket_of(lengths, boundaries)
    for length in np.unique(buckets).tolist():
        texts = np.flatnonzero(buckets == length)
        for start in range(0, len(texts), batch_size):
            yield Bucket(texts[start : start + batch_size], length)
