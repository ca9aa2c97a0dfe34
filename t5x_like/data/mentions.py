"""Mentions of entities in a text, from the feature `entities` of a task: a number for each token of the targets.

text       J . K . Rowling wrote Harry Potter
entities   2 3 3 3 3       0     4     5          2 e begins a mention of entity e, 2 e + 1 goes on; 0 is none
"""

from typing import NamedTuple

import numpy as np

from t5x_like.data.ragged import Ragged


class Mentions(NamedTuple):
    """int64 [mentions], in the order of the text: first place in the flat values, tokens, sequence, entity."""

    starts: np.ndarray
    lengths: np.ndarray
    sequence: np.ndarray
    entity: np.ndarray


def find_mentions(entities: Ragged) -> Mentions:
    """A mention that a cut has left without its beginning begins at the cut."""
    values = entities.values
    before = np.zeros_like(values)
    before[1:] = values[:-1]
    before[entities.starts[entities.lengths > 0]] = 0
    goes_on = (values % 2 == 1) & (before // 2 == values // 2)
    starts = np.flatnonzero((values > 1) & ~goes_on)
    number = np.cumsum((values > 1) & ~goes_on) - 1
    inside = values > 1
    lengths = np.bincount(number[inside], minlength=len(starts))
    rows = np.repeat(np.arange(len(entities.lengths)), entities.lengths)
    return Mentions(starts, lengths, rows[starts], values[starts].astype(np.int64) // 2)
