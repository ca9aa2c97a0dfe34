"""Many sequences of different lengths as one flat array: what the host half of every objective works on.

  Ragged(values=[5 6 7 8 9], lengths=[2 3])   is   [5 6] [7 8 9]

All functions are vectorised over the sequences; a Python loop over examples costs more than everything else together.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """values int32 [sum of lengths], lengths int64 [n]."""

    values: np.ndarray
    lengths: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each sequence begins in `values`, int64 [n]."""
        return np.cumsum(self.lengths) - self.lengths


class Documents(NamedTuple):
    """A block of prepared records: the features of a task, and whether each record ends its document.

    `prepare` cuts a long document into several records; only the last of them `ends`.
    """

    features: dict[str, Ragged]
    ends: np.ndarray


def from_list(sequences: Iterable) -> Ragged:
    arrays = [np.asarray(sequence, np.int32) for sequence in sequences]
    lengths = np.array([len(array) for array in arrays], np.int64)
    return Ragged(np.concatenate([np.zeros(0, np.int32), *arrays]), lengths)


def to_list(ragged: Ragged) -> list[np.ndarray]:
    return np.split(ragged.values, np.cumsum(ragged.lengths)[:-1]) if len(ragged.lengths) else []


def index_within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... inside each sequence: lengths [2 3] give [0 1 0 1 2]."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def gather(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
    """The ranges [start, start + length) of `values`, one sequence each."""
    num_values = lengths.cumsum()
    source = np.repeat(starts - num_values + lengths, lengths)
    source += np.arange(len(source))
    return Ragged(values[source], lengths)


def take(ragged: Ragged, indices: np.ndarray) -> Ragged:
    """The sequences at `indices`, in that order."""
    return gather(ragged.values, ragged.starts[indices], ragged.lengths[indices])


def concatenate(parts: list[Ragged]) -> Ragged:
    """The sequences of all parts, one after another."""
    return Ragged(np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts]))


def keep(ragged: Ragged, mask: np.ndarray) -> Ragged:
    """Drops the values where the flat `mask` is false; sequences keep their number and get shorter."""
    kept = np.flatnonzero(mask)  # and a search among these: adding up the whole mask costs three times as much
    return Ragged(ragged.values[kept], np.diff(np.searchsorted(kept, np.cumsum(ragged.lengths)), prepend=0))


def append(ragged: Ragged, token: int, where: np.ndarray | None = None) -> Ragged:
    """Adds `token` at the end of every sequence, or of those where the mask `where` [n] is true."""
    added = np.ones(len(ragged.lengths), np.int64) if where is None else where.astype(np.int64)
    lengths = ragged.lengths + added
    values = np.empty(lengths.sum(), ragged.values.dtype)
    ends = np.cumsum(lengths)[added > 0] - 1
    values[ends] = token
    inside = np.ones(len(values), bool)
    inside[ends] = False
    values[inside] = ragged.values
    return Ragged(values, lengths)


def surround(ragged: Ragged, first: int, last: int) -> Ragged:
    """`first`, the sequence, `last`: for every sequence."""
    lengths = ragged.lengths + 2
    values = np.empty(lengths.sum(), ragged.values.dtype)
    ends = np.cumsum(lengths)
    inside = np.ones(len(values), bool)
    inside[ends - 1] = inside[ends - lengths] = False
    values[inside] = ragged.values
    values[ends - 1], values[ends - lengths] = last, first
    return Ragged(values, lengths)


def truncate(ragged: Ragged, length: int) -> Ragged:
    """The first `length` values of every sequence."""
    return gather(ragged.values, ragged.starts, np.minimum(ragged.lengths, length))


def join_pairs(left: Ragged, right: Ragged) -> Ragged:
    """left[i] followed by right[i], for every i."""
    n = len(left.lengths)
    both = concatenate([left, right])
    return join(take(both, np.arange(2 * n).reshape(2, n).T.ravel()), 2)


def join(ragged: Ragged, group: int) -> Ragged:
    """Every `group` consecutive sequences as one."""
    return Ragged(ragged.values, ragged.lengths.reshape(-1, group).sum(1))
