"""Documents that contain what an evaluation set asks (GPT-3, arXiv:2005.14165, appendix C: n-grams of 13 words)."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from t5x_like.corpus.documents import column, drop
from t5x_like.corpus.hashing import NEXT, finish
from t5x_like.corpus.minhash import word_hashes, words_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Drops a document that shares a run of at least `words` words with a text of the evaluation sets.

    paths   text files, one question, answer or passage a line; a line of fewer words is asked for as a whole, if it
            has at least `shortest`
    The reason names what was hit, the text of the longest common run, so that the counts of the manifest are the list
    of contaminated evaluation texts: "pubmedqa.txt line 17".
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
        hits = [self.longest_hit(text) for text in column(batch, "text")]
        return drop(batch, [f"{pathlib.Path(hit[0]).name} line {hit[1]}" if hit else None for hit in hits])

    def longest_hit(self, text: str) -> tuple[str, int, int] | None:
        """(file, line from 1, words) of the longest run that the text has in common with any of them."""
        words = word_hashes(words_of(text))
        best = None
        for path, size, known, lines in index_of(tuple(self.paths), self.words, self.shortest):
            if len(words) < size:
                continue
            runs = runs_of(words, size)
            at = np.minimum(np.searchsorted(known, runs), len(known) - 1)
            found = known[at] == runs
            start, longest = longest_true(found)
            if longest and (best is None or longest + size - 1 > best[2]):
                best = path, int(lines[at[start]]), longest + size - 1
        return best


@functools.lru_cache(maxsize=4)
def index_of(paths: tuple[str, ...], words: int, shortest: int) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """(file, words in a run, sorted hashes of its runs of so many, first line of each) by file and number of words."""
    found: dict[tuple[str, int], list[tuple[np.ndarray, int]]] = {}
    for path in paths:
        for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").split("\n")):
            hashes = word_hashes(words_of(line))
            size = min(len(hashes), words)
            if size >= shortest:
                found.setdefault((path, size), []).append((runs_of(hashes, size), number + 1))
    made = []
    for (path, size), parts in sorted(found.items()):
        lines = np.concatenate([np.full(len(runs), number) for runs, number in parts])
        known, first = np.unique(np.concatenate([runs for runs, _ in parts]), return_index=True)
        made.append((path, size, known, lines[first]))
    return made


def runs_of(words: np.ndarray, size: int) -> np.ndarray:
    """A hash for every run of `size` words, uint64."""
    value = np.zeros(len(words) - size + 1, np.uint64)
    for i in range(size):
        value = value * NEXT + words[i : i + len(value)]
    return finish(value)


def longest_true(mask: np.ndarray) -> tuple[int, int]:
    """(start, length) of the first longest run of true; length 0 if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    if not len(edges):
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    place = int(lengths.argmax())
    return int(edges[::2][place]), int(lengths[place])
