"""A recipe on a part of the documents, and what that says of all of them: time, memory, and how much will be left.

Documents are drawn by the least of their shingles' hashes, mixed: copies are drawn together, near copies with a
probability that is their Jaccard similarity. So duplicates are as frequent in the sample as in the whole; of documents
that are drawn one by one, a sample of 1 % would hold a pair in 10,000 only.
"""

import dataclasses
import pathlib
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from t5x_like.corpus import tally
from t5x_like.corpus.hashing import finish
from t5x_like.corpus.minhash import shingles
from t5x_like.corpus.sources import Source

_NGRAM = 5


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A source of which only a part of the documents is there. All of it is read, so that nothing else differs."""

    source: Source
    fraction: float

    @property
    def reader(self) -> Any:
        return self.source.reader

    @property
    def name(self) -> str:
        return self.source.name

    def records(self, path: pathlib.Path, counts: Counter) -> Iterator[dict | str]:
        """As of the source, less the documents that were not drawn."""
        for item in self.source.records(path, counts):
            if isinstance(item, str) or is_drawn(item["text"], self.fraction):
                yield item


def is_drawn(text: str, fraction: float) -> bool:
    hashes = shingles(text, _NGRAM)
    least = hashes[:1].astype(np.uint64) if len(hashes) else np.zeros(1, np.uint64)
    return int(finish(least + np.uint64(1))[0]) < fraction * 2**64


def sampled(sources: Sequence[Source], fraction: float) -> Sequence[Any]:
    if not 0 < fraction <= 1:
        raise ValueError(f"sample {fraction} must be above 0 and at most 1: the part of the documents to try")
    return sources if fraction == 1 else [Sampled(source, fraction) for source in sources]


def of_whole(told: tally.Tally, fraction: float, key_bytes: int) -> dict[str, float]:
    """What the whole corpus will need and give, from the tally of a sample; seconds are of one core.

    key_bytes   of all keys that steps over all documents wrote for the sample: at most so many are held at a time
    """
    *_, (_, left) = [("", [0, 0, 0]), *tally.by_step(told)]
    reading = told.seconds[tally.READ]
    return {
        "CPU seconds": reading + (sum(told.seconds.values()) - reading) / fraction,
        "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + key_bytes * (1 / fraction - 1),
        "documents": left[0] / fraction,
        "characters": left[1] / fraction,
        "bytes": left[2] / fraction,
    }
