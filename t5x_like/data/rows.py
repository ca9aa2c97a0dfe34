"""Packed rows as one table of int32, so that cutting and joining rows is one copy; `Features` are its columns.

  side of 3 places    tokens  segments  positions  order | targets  weights      (the last two only where it predicts)
  a row               5 6 7   1 1 2     0 1 0      0 1 0 | 6 1 1    1.0 1.0 1.0  (float32, bit by bit)

The encoder's columns stand before the decoder's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5x_like.data import packing, ragged
from t5x_like.data.rendering import Side
from t5x_like.features import Features

_NUM_SEEN, _NUM_PREDICTED = 4, 2


class Columns(NamedTuple):
    """The columns of one side."""

    length: int
    predicts: bool

    @property
    def width(self) -> int:
        return self.length * (_NUM_SEEN + _NUM_PREDICTED * self.predicts)


class Table(NamedTuple):
    numbers: np.ndarray
    sides: tuple[Columns, ...]

    def cut(self, start: int, stop: int) -> "Table":
        return Table(self.numbers[start:stop], self.sides)


def join(tables: Sequence[Table]) -> Table:
    """The rows of all tables, one after another."""
    return Table(np.concatenate([table.numbers for table in tables]), tables[0].sides)


def fill_up(table: Table, num_rows: int) -> Table:
    """The table with rows of padding behind it."""
    missing = num_rows - len(table.numbers)
    return table._replace(numbers=np.pad(table.numbers, ((0, missing), (0, 0)))) if missing else table


def lay_out(sides: Sequence[Side], rows: np.ndarray, num_rows: int, lengths: Sequence[int]) -> Table:
    """Writes every example into its row; places without a token are zero in all columns."""
    columns = tuple(Columns(int(n), side.targets is not None) for side, n in zip(sides, lengths, strict=True))
    numbers = np.zeros((num_rows, sum(side.width for side in columns)), np.int32)
    flat, first = numbers.reshape(-1), 0
    for side, (length, predicts) in zip(sides, columns, strict=True):
        offsets, segments = packing.offsets_in_rows(rows, side.lengths)
        within = ragged.index_within(side.lengths)
        place = np.repeat(rows * numbers.shape[1] + offsets + first, side.lengths) + within
        # Everything is int32 before it is written: a write that converts costs four times as much.
        segments = np.repeat(segments.astype(np.int32), side.lengths)
        values = [side.tokens, segments, within.astype(np.int32), side.attn_order]
        values += [side.targets, side.loss_weights.view(np.int32)] if predicts else []
        for value in values:
            flat[place] = value
            place += length
        first += length * len(values)
    return Table(numbers, columns)


def to_features(table: Table) -> Features:
    """The arrays of a batch, each in one piece."""
    first, encoder, side = 0, None, None
    for columns in table.sides:
        length = columns.length
        begins = range(first, first + columns.width, length)
        tokens, segments, positions, order, *predicted = (
            np.ascontiguousarray(table.numbers[:, begin : begin + length]) for begin in begins
        )
        targets, weights = predicted or (None, None)
        weights = None if weights is None else weights.view(np.float32)
        encoder, side = side, Features(tokens, targets, weights, segments, positions[..., None], order)
        first += columns.width
    return side._replace(encoder=encoder)
