"""Documents that contain what an evaluation set asks (GPT-3, arXiv:2005.14165, appendix C: n-grams of 13 words)."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from t5x_like.corpus.documents import column, drop
from t5x_like.corpus.minhash import finish, word_hashes, words_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Drops a document that shares a run of at least `words` words with a text of the evaluation sets.

    paths   text files, one question, answer or passage a line; a line of fewer words is asked for as a whole, if it
            has at least `shortest`
    The reason names the file and the longest common run, e.g. "pubmedqa.txt: 31 words".
    """

    paths: Sequence[str]
    words: int = 13
    shortest: int = 8

    def __post_init__(self):
        if not 1 <= self.shortest <= self.words:
            raise ValueError(f"shortest {self.shortest} must be from 1 to words, {self.words}")
        for path in self.paths:
            if not pathlib.Path(path).is_file():
                raise FileNotFoundError(f"evaluation texts {path}: no such file; one text a line")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return drop(batch, [self.reason(text) for text in column(batch, "text")])

    def reason(self, text: str) -> str | None:
        words = word_hashes(words_of(text))
        best, where = 0, ""
        for path, size, known in index_of(tuple(self.paths), self.words, self.shortest):
            if len(words) < size:
                continue
            found = np.isin(runs_of(words, size), known)
            longest = longest_true(found)
            if longest and longest + size - 1 > best:
                best, where = longest + size - 1, pathlib.Path(path).name
        return f"{where}: {best} words" if best else None


@functools.lru_cache(maxsize=4)
def index_of(paths: tuple[str, ...], words: int, shortest: int) -> list[tuple[str, int, np.ndarray]]:
    """(file, number of words, sorted hashes of its runs of so many) for each file and number of words."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for path in paths:
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
            hashes = word_hashes(words_of(line))
            size = min(len(hashes), words)
            if size >= shortest:
                found.setdefault((path, size), []).append(runs_of(hashes, size))
    return [(path, size, np.unique(np.concatenate(parts))) for (path, size), parts in sorted(found.items())]


def runs_of(words: np.ndarray, size: int) -> np.ndarray:
    """A hash for every run of `size` words, uint64."""
    value = np.zeros(len(words) - size + 1, np.uint64)
    for i in range(size):
        value = value * np.uint64(0xD6E8FEB86659FD93) + words[i : i + len(value)]
    return finish(value)


def longest_true(mask: np.ndarray) -> int:
    """The length of the longest run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
