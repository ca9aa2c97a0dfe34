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

from t5x_like.corpus import run, tally
from t5x_like.corpus.hashing import finish
from t5x_like.corpus.minhash import shingle_sets
from t5x_like.corpus.sources import Source

_NGRAM = 5
_AT_ONCE = 64  # documents
_BYTES_A_DOCUMENT = 430  # from 81 MB to 2 GB of text (docs/results.md, MinHash), pages of mapped files with them


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
        """As of the source, less the documents that were not drawn; what comes before damage is drawn from too."""
        waiting: list[dict | str] = []
        try:
            for item in self.source.records(path, counts):
                waiting.append(item)
                if len(waiting) == _AT_ONCE:
                    yield from self.drawn(waiting)
                    waiting = []
        except (ValueError, OSError, EOFError):
            yield from self.drawn(waiting)
            raise
        yield from self.drawn(waiting)

    def drawn(self, items: list[dict | str]) -> Iterator[dict | str]:
        """Those of `items` that are drawn, and every reason why one could not be read."""
        stays = iter(are_drawn([item["text"] for item in items if not isinstance(item, str)], self.fraction).tolist())
        yield from (item for item in items if isinstance(item, str) or next(stays))


def are_drawn(texts: Sequence[str], fraction: float) -> np.ndarray:
    """bool [texts]; many at once, since one by one their shingles took a quarter of a whole sample's time."""
    flat, ends = shingle_sets(texts, _NGRAM)
    sizes = np.diff(ends, prepend=0)
    least = np.zeros(len(texts), np.uint64)
    least[sizes > 0] = flat[(ends - sizes)[sizes > 0]]
    return finish(least + np.uint64(1)) < fraction * 2**64


def sampled(sources: Sequence[Source], fraction: float) -> Sequence[Any]:
    if not 0 < fraction <= 1:
        raise ValueError(f"sample {fraction} must be above 0 and at most 1: the part of the documents to try")
    return sources if fraction == 1 else [Sampled(source, fraction) for source in sources]


def of_whole(told: tally.Tally, fraction: float, key_bytes: int) -> dict[str, float]:
    """What the whole corpus will need and give, from the tally of a sample; seconds are of one core.

    key_bytes   of all keys that steps over all documents wrote for the sample. Keys are mapped: of them a worker holds
                those that it has not written yet, twice while they are put together; choosing holds numbers a document
    """
    (_, read), *_, (_, left) = [*tally.by_step(told)] * 2 or [("", [0, 0, 0])] * 2
    reading = told.seconds[tally.READ]
    so_far = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024
    unwritten = min(key_bytes / fraction, run.KEY_BYTES) - min(key_bytes, run.KEY_BYTES)
    return {
        "CPU seconds": reading + (sum(told.seconds.values()) - reading) / fraction,
        "peak bytes": so_far + 2 * unwritten + _BYTES_A_DOCUMENT * read[0] * (1 / fraction - 1),
        "documents": left[0] / fraction,
        "characters": left[1] / fraction,
        "bytes": left[2] / fraction,
    }
