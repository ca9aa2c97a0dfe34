"""Runs of words that stand in a corpus more than once, struck out (Lee et al., arXiv:2107.06499, section 4.1).

Every run of `words` words has a hash of 64 bits; a run that comes again goes, and with it all longer ones, since each
of their words lies in a run that comes again. The released code compares bytes by a suffix array, which needs the
corpus in memory several times; hashes are compared here in parts by their first bits, so that memory is bounded by
`at_once`. Words are compared in lower case, without what stands between them; cuts fall on the beginnings of words.
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from t5x_like.corpus import survivors
from t5x_like.corpus.decontamination import runs_of
from t5x_like.corpus.documents import column, drop, with_column
from t5x_like.corpus.minhash import UNSPACED, word_hashes

_WORD = re.compile(f"[{UNSPACED}]|(?:(?![{UNSPACED}])[^\\W_])+")
_SPAN = np.dtype([*survivors.NAME.descr, ("begin", np.int32), ("end", np.int32)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepeatedPassages:
    """words     of the shortest run that counts; Lee et al. have 50 tokens
    keep      'none': every copy is struck out, as in the released code, 'first': all but the first of each run
    shortest  a document of which fewer words are left is dropped
    at_once   how many hashes are compared at a time, 16 bytes each
    """

    words: int = 50
    keep: str = "none"
    shortest: int = 1
    at_once: int = 1 << 25

    def __post_init__(self):
        if self.keep not in ("none", "first"):
            raise ValueError(f"keep {self.keep!r}: choose none or first")
        if self.words < 2 or self.shortest < 1 or self.at_once < 1:
            raise ValueError(f"{self}: words at least 2, shortest and at_once at least 1")

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        hashes = [self.hashes(text) for text in column(batch, "text")]
        offsets = pa.array(np.cumsum([0, *map(len, hashes)]), pa.int64())
        flat = pa.array(np.concatenate([np.zeros(0, np.uint64), *hashes]), pa.uint64())
        return pa.table(
            {
                "file": pa.array(column(batch, "file"), pa.int32()),
                "row": pa.array(column(batch, "row"), pa.int64()),
                "runs": pa.LargeListArray.from_arrays(offsets, flat),
            }
        )

    def hashes(self, text: str) -> np.ndarray:
        """Of every run of `words` words, uint64, in their order; none in a shorter text."""
        found = word_hashes(" ".join(_WORD.findall(text)).lower().encode("utf-8", "surrogatepass"))
        return runs_of(found, self.words) if len(found) >= self.words else np.zeros(0, np.uint64)

    def choose(self, keys: pa.Table) -> survivors.Choice:
        chunks = [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in keys.column("runs").chunks]
        pieces = [values[offsets[0] : offsets[-1]] for values, offsets in chunks if len(offsets)]
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(offsets) for _, offsets in chunks)])
        total = int(sizes.sum())
        again = np.zeros(total, bool)
        bits = max((total - 1) // self.at_once, 0).bit_length()
        for part in range(1 << bits):
            hashes, places = part_of(pieces, bits, part)
            again[places[repeated(hashes, keep_first=self.keep == "first")]] = True
        ends = np.cumsum(sizes)[1:]
        chosen = np.concatenate([np.empty(0, _SPAN), *self.spans(again, ends, keys)])
        return survivors.Choice(chosen, {"runs of words": total, "passages struck out": len(chosen)})

    def spans(self, again: np.ndarray, ends: np.ndarray, keys: pa.Table) -> Iterator[np.ndarray]:
        """Of each document with runs that come again, the words that go: runs that touch are one passage."""
        files, rows = keys.column("file").to_numpy(), keys.column("row").to_numpy()
        marked = np.flatnonzero(again)
        owner = np.searchsorted(ends, marked, side="right")
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        for begin, stop in zip(first.tolist(), [*first[1:].tolist(), len(owner)], strict=True):
            document = owner[begin]
            places = marked[begin:stop] - starts[document]
            breaks = np.flatnonzero(np.diff(places) > self.words)
            found = np.empty(len(breaks) + 1, _SPAN)
            found["file"], found["row"] = files[document], rows[document]
            found["begin"] = places[np.concatenate([[0], breaks + 1])]
            found["end"] = places[np.concatenate([breaks, [-1]])] + self.words
            yield found

    def take_away(self, batch: pa.RecordBatch, chosen: np.ndarray) -> pa.RecordBatch:
        spans: dict[int, list[tuple[int, int]]] = {}
        for row, begin, end in zip(*(chosen[name].tolist() for name in ("row", "begin", "end")), strict=True):
            spans.setdefault(row, []).append((begin, end))
        if not spans:
            return batch
        texts, reasons = [], []
        for row, text in zip(column(batch, "row"), column(batch, "text"), strict=True):
            kept = strike(text, spans[row]) if row in spans else text
            is_short = row in spans and len(_WORD.findall(kept)) < self.shortest
            texts.append(text if is_short else kept)  # what is dropped is shown as it was
            reasons.append("repeated passages alone" if is_short else None)
        return drop(with_column(batch, "text", texts), reasons)


def part_of(pieces: list[np.ndarray], bits: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes whose first `bits` bits are `part`, their places among all)."""
    found, places, before = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for piece in pieces:
        own = np.flatnonzero(piece >> np.uint64(64 - bits) == part) if bits else np.arange(len(piece))
        found.append(piece[own])
        places.append(own + before)
        before += len(piece)
    return np.concatenate(found), np.concatenate(places)


def repeated(hashes: np.ndarray, *, keep_first: bool) -> np.ndarray:
    """bool [n]: does the value come more than once? With `keep_first` its first place does not count."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    as_before = np.concatenate([[False], ordered[1:] == ordered[:-1]])[: len(hashes)]
    as_after = np.concatenate([as_before[1:], [False]])[: len(hashes)]
    found = np.zeros(len(hashes), bool)
    found[order] = as_before if keep_first else as_before | as_after
    return found


def strike(text: str, spans: list[tuple[int, int]]) -> str:
    """Without the words begin ... end - 1 of each span, and what stands behind each of them up to the next word."""
    starts = [match.start() for match in _WORD.finditer(text)] + [len(text)]
    kept, at = [], 0
    for begin, end in sorted(spans):
        kept.append(text[at : starts[begin]])
        at = starts[end]
    return "".join([*kept, text[at:]])
