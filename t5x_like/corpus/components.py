"""Clusters of documents from pairs that are alike, in memory that does not grow with the number of pairs.

  candidates  the keys of one band after the other are sorted; equal ones give pairs, a block of them at a time
  checked     a pair is kept if the step says that it is a true one, and written to a file
  components  union-find over the file, a block at a time, until nothing changes; what stays in memory is one number
              a document

Every pass takes the smaller of two roots, so that a cluster is named by its first document whatever the order of pairs.
"""

import bisect
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from t5x_like.corpus import mapped

_MOST_ALL_PAIRS = 50  # documents of one bucket that are all compared; of more, each with the first and with the next
BLOCK = 1 << 18  # pairs that are in memory at once
_ROWS_COMPARED = 1 << 14  # pairs whose bands are
_SETS_KEPT = 1 << 7  # pairs after whose comparison their sets need not stay


def clusters(
    count: int, pairs: Iterator[np.ndarray], is_alike: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int, int]:
    """(the first document of each one's cluster [count], pairs looked at, pairs alike); pairs int64 [n, 2]."""
    looked_at = alike = 0
    with tempfile.TemporaryFile() as file:
        for block in pairs:
            true_ones = block[is_alike(block)] if len(block) else block
            looked_at, alike = looked_at + len(block), alike + len(true_ones)
            file.write(np.ascontiguousarray(true_ones, np.int64).tobytes())
        return components(count, lambda: _blocks(file)), looked_at, alike


def _blocks(file) -> Iterator[np.ndarray]:
    file.seek(0)
    while data := file.read(16 * BLOCK):
        yield np.frombuffer(data, np.int64).reshape(-1, 2)


def candidates(bands: "Rows") -> Iterator[np.ndarray]:
    """Pairs i < j of documents that agree on a band, in blocks; once for the first band on which they agree.

    bands   [documents, bands], one column is in memory at a time
    """
    for number in range(bands.shape[1]):
        band = bands.column(number)
        mapped.let_go()
        for block in equal_pairs(band):
            for pairs in np.array_split(block, range(_ROWS_COMPARED, len(block), _ROWS_COMPARED)):
                left, right = (bands.rows(pairs[:, side])[:, :number] for side in (0, 1))
                is_new = (left != right).all(axis=1)
                mapped.let_go()
                if is_new.any():
                    yield pairs[is_new]


def equal_pairs(values: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs i < j with values[i] == values[j], int64 [n, 2], in blocks; of large groups enough to connect them."""
    order = np.argsort(values, kind="stable")
    if not len(order):
        return
    same = values[order][1:] == values[order][:-1]
    starts = np.flatnonzero(np.append(True, ~same))
    sizes = np.diff(np.append(starts, len(order)))
    several = sizes > 1
    held, found = 0, []
    for start, size in zip(starts[several].tolist(), sizes[several].tolist(), strict=True):
        members = order[start : start + size]  # ascending, since the sort is stable
        if size <= _MOST_ALL_PAIRS:
            i, j = _triangle(size)
            found.append(np.stack([members[i], members[j]], axis=1))
        else:
            found.append(np.stack([members[:-1], members[1:]], axis=1))
            found.append(np.stack([np.full(size - 2, members[0]), members[2:]], axis=1))
        held += len(found[-1])
        if held >= BLOCK:
            yield np.concatenate(found)
            held, found = 0, []
    if found:
        yield np.concatenate(found)


_TRIANGLES = [np.triu_indices(size, 1) for size in range(_MOST_ALL_PAIRS + 1)]


def _triangle(size: int) -> tuple[np.ndarray, np.ndarray]:
    return _TRIANGLES[size]


def components(count: int, blocks: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    """The smallest member of each one's connected component, int64 [count]; `blocks` is asked once a pass."""
    root = np.arange(count)
    changed = True
    while changed:
        changed = False
        for pairs in blocks():
            changed |= _unite(root, pairs[:, 0], pairs[:, 1])
    return root


def _unite(root: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
    changed = False
    while True:
        a, b = root[left], root[right]
        differ = a != b
        if not differ.any():
            return changed
        changed = True
        low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
        np.minimum.at(root, high, low)
        while True:
            above = root[root]
            if (above == root).all():
                break
            root[:] = above


def jaccard(pairs: np.ndarray, sets: Sequence[np.ndarray]) -> np.ndarray:
    """True Jaccard of the sets (sorted, unique) of each pair; 0 if both are empty."""
    found = np.zeros(len(pairs))
    for place, (i, j) in enumerate(pairs.tolist()):
        merged = np.sort(np.concatenate([sets[i], sets[j]]))
        both = int(np.count_nonzero(merged[1:] == merged[:-1]))
        found[place] = both / max(len(merged) - both, 1)
        if not place % _SETS_KEPT:
            mapped.let_go()
    return found


class Lists(Sequence):
    """A column of lists, by number, where its chunks lie."""

    def __init__(self, column: pa.ChunkedArray):
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.parts = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in chunks]
        self.starts = np.cumsum([0, *map(len, chunks)]).tolist()

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, number: int) -> np.ndarray:
        part = bisect.bisect_right(self.starts, number) - 1
        offsets, values = self.parts[part]
        place = number - self.starts[part]
        return values[offsets[place] : offsets[place + 1]]


class Rows:
    """A column of lists of one length, where its chunks lie: by columns, and single places."""

    def __init__(self, column: pa.ChunkedArray):
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.parts = [chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in chunks]
        self.starts = np.cumsum([0, *map(len, chunks)])
        self.shape = (int(self.starts[-1]), column.type.list_size)

    def column(self, number: int) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.uint64), *(part[:, number] for part in self.parts)])

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """[numbers, columns]."""
        found = np.empty((len(numbers), self.shape[1]), np.uint64)
        part_of = np.searchsorted(self.starts, numbers, side="right") - 1
        order = np.argsort(part_of, kind="stable")
        edges = np.searchsorted(part_of[order], np.arange(len(self.parts) + 1))
        for part, begin, end in zip(range(len(self.parts)), edges[:-1], edges[1:], strict=True):
            own = order[begin:end]
            found[own] = self.parts[part][numbers[own] - self.starts[part]]
        return found
