"""Packed rows as one table of 32-bit numbers, so that cutting and joining rows is one copy; `Features` are its columns.

  side of 3 places    tokens  segment_ids  positions/0  attn_order | targets  loss_weights    (where it predicts)
  a row               5 6 7   1 1 2        0 1 0        0 1 0      | 6 1 1    1.0 1.0 1.0     (float32, bit by bit)

A side has further fields where its examples do: type_ids, a plane of positions for each dimension, and `aux/NAME`. The
encoder's columns stand before the decoder's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5x_like.data import packing, ragged
from t5x_like.data.examples import Side
from t5x_like.features import Features


class Layout(NamedTuple):
    """The columns of one side: `length` of them for each of `fields`, which are (name, type)."""

    length: int
    fields: tuple[tuple[str, str], ...]


class Table(NamedTuple):
    """numbers int32 [rows, columns of all sides]."""

    numbers: np.ndarray
    sides: tuple[Layout, ...]


def lay_out(sides: Sequence[Side], rows: np.ndarray, num_rows: int, lengths: Sequence[int]) -> Table:
    """Writes every example into its row; places without a token are zero in all columns."""
    offsets_and_segments = [packing.offsets_in_rows(rows, side.lengths) for side in sides]
    fields = [fields_of(side, segments) for side, (_, segments) in zip(sides, offsets_and_segments, strict=True)]
    layouts = tuple(
        Layout(int(length), tuple((name, str(value.dtype)) for name, value in values.items()))
        for length, values in zip(lengths, fields, strict=True)
    )
    numbers = np.zeros((num_rows, sum(layout.length * len(layout.fields) for layout in layouts)), np.int32)
    flat, first = numbers.reshape(-1), 0
    for side, (offsets, _), values, (length, _) in zip(sides, offsets_and_segments, fields, layouts, strict=True):
        runs, packed = split_by_room(side.lengths, length)
        starts, lengths = side.starts, side.lengths[packed]
        within = ragged.index_within(lengths)
        source = np.repeat(starts[packed], lengths) + within if runs else slice(None)
        place = np.repeat(rows[packed] * numbers.shape[1] + offsets[packed] + first, lengths) + within
        for value in values.values():
            value = value.view(np.int32)
            for begin, end in runs:
                as_rows = value[starts[begin] :][: (end - begin) * length].reshape(-1, length)
                numbers[rows[begin:end], first : first + length] = as_rows
            flat[place] = value[source]
            place += length
            first += length
    return Table(numbers, layouts)


def split_by_room(lengths: np.ndarray, room: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """(runs of examples to copy as whole rows, as (first, last + 1); which others to write token by token).

    A row is copied in an eighth of the time of its tokens. That pays where most examples fill their rows.
    """
    is_whole = lengths == room
    if 2 * is_whole.sum() < len(lengths):
        return [], np.arange(len(lengths))
    borders = np.flatnonzero(np.diff(is_whole, prepend=False, append=False)).tolist()
    return list(zip(borders[::2], borders[1::2], strict=True)), np.flatnonzero(~is_whole)


def fields_of(side: Side, segments: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of a side by name, each flat over the tokens of all examples and of 4 bytes a number.

    All are so before they are written into rows: a write that converts costs four times as much.
    """
    within = ragged.index_within(side.lengths).astype(np.int32)
    planes = within[None] if side.positions is None else side.positions.T
    segment_ids = np.repeat(segments.astype(np.int32), side.lengths)
    if side.parts is not None:
        segment_ids = (segment_ids - 1) * (side.parts.max(initial=0) + 1) + side.parts + 1
    fields = {"tokens": side.tokens, "segment_ids": segment_ids.astype(np.int32)}
    fields |= {f"positions/{number}": np.ascontiguousarray(plane) for number, plane in enumerate(planes)}
    fields["attn_order"] = side.attn_order
    if side.targets is not None:
        fields |= {"targets": side.targets, "loss_weights": side.loss_weights}
    if side.type_ids is not None:
        fields["type_ids"] = side.type_ids
    return fields | {f"aux/{name}": value for name, value in side.aux.items()}


def to_features(numbers: np.ndarray, sides: Sequence[Layout]) -> Features:
    """The arrays of a batch, each in one piece."""
    first, features = 0, None
    for length, fields in sides:
        arrays = {}
        for name, dtype in fields:
            arrays[name] = np.ascontiguousarray(numbers[:, first : first + length]).view(dtype)
            first += length
        planes = [arrays.pop(name) for name, _ in fields if name.startswith("positions/")]
        aux = {name.removeprefix("aux/"): arrays.pop(name) for name, _ in fields if name.startswith("aux/")}
        arrays |= {"targets": arrays.get("targets"), "loss_weights": arrays.get("loss_weights")}
        features = Features(**arrays, positions=np.stack(planes, axis=-1), aux=aux or None, encoder=features)
    return features
