"""Examples to the two shapes of a row: encoder and decoder, or decoder alone; an argument of the pipeline chooses.

  inputs 5 6 7   targets 8 9 1   (start token 0)

  encoder_decoder   encoder tokens 5 6 7           decoder tokens 0 8 9         targets 8 9 1        weights 1 1 1
  decoder_only      tokens 0 5 6 7 8 9   targets 5 6 7 8 9 1   weights 0 0 0 1 1 1   attn_order 0 0 0 0 1 2

As in SeqIO's PrefixLMFeatureConverter, the bidirectional part of a decoder-only row is one longer than the inputs: the
place that predicts the first target sees, and is seen by, the whole prefix.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.examples import Examples
from t5x_like.data.ragged import Ragged


class Side(NamedTuple):
    """One side before packing: arrays over the tokens of all examples, int32 but for weights, which are float32.

    targets, loss_weights   None where the side predicts nothing
    positions               [tokens, P], or None: counted from 0 in each example
    type_ids, aux           as in `Features`
    """

    tokens: np.ndarray
    targets: np.ndarray | None
    loss_weights: np.ndarray | None
    attn_order: np.ndarray
    lengths: np.ndarray
    positions: np.ndarray | None = None
    type_ids: np.ndarray | None = None
    aux: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def starts(self) -> np.ndarray:
        """Where each example begins, int64 [n]."""
        return np.cumsum(self.lengths) - self.lengths

    def cut(self, start: int, stop: int) -> "Side":
        """Examples start ... stop - 1."""
        begin = int(self.lengths[:start].sum())
        end = begin + int(self.lengths[start:stop].sum())
        return self.map_tokens(lambda array: array[begin:end])._replace(lengths=self.lengths[start:stop])

    def map_tokens(self, function: Callable[[np.ndarray], np.ndarray]) -> "Side":
        """The function of every array that has a value for each token."""
        values = (None if array is None else function(array) for array in self[:4])
        positions, type_ids = (None if array is None else function(array) for array in self[5:7])
        aux = {name: function(array) for name, array in self.aux.items()}
        return Side(*values, self.lengths, positions, type_ids, aux)


def concatenate(sides: Sequence[Side]) -> Side:
    """The examples of all sides, one after another; those that lack an array of others get zeros for it."""
    names = dict.fromkeys(name for side in sides for name in side.aux)

    def joined(arrays: Sequence[np.ndarray | None], make: Callable[[Side], np.ndarray]) -> np.ndarray | None:
        if all(array is None for array in arrays):
            return None
        return np.concatenate([make(s) if a is None else a for a, s in zip(arrays, sides, strict=True)])

    def zeros(side: Side) -> np.ndarray:
        return np.zeros(len(side.tokens), np.int32)

    def counted(side: Side) -> np.ndarray:
        planes = next(other.positions for other in sides if other.positions is not None).shape[1]
        within = ragged.index_within(side.lengths).astype(np.int32)
        return np.stack([within, *[zeros(side)] * (planes - 1)], axis=1)

    aux = {}
    for name in names:
        dtype = next(side.aux[name].dtype for side in sides if name in side.aux)
        aux[name] = joined([side.aux.get(name) for side in sides], lambda side, t=dtype: zeros(side).astype(t))
    columns = list(zip(*(side[:5] for side in sides), strict=True))
    return Side(
        *(joined(column, zeros) for column in columns),
        joined([side.positions for side in sides], counted),
        joined([side.type_ids for side in sides], zeros),
        aux,
    )


def encoder_decoder(examples: Examples) -> tuple[Side, ...]:
    """(encoder, decoder): the encoder sees all of itself, the decoder is causal."""
    inputs, targets, starts = examples
    if inputs is None:
        raise ValueError("this objective gives no inputs to encode: train a Decoder on it, with render = @decoder_only")
    zeros = np.zeros(len(inputs.values), np.int32)
    order = ragged.index_within(targets.lengths).astype(np.int32)
    weights = np.ones(len(targets.values), np.float32)
    return (
        Side(inputs.values, None, None, zeros, inputs.lengths),
        Side(shift_right(targets, starts), targets.values, weights, order, targets.lengths),
    )


def decoder_only(examples: Examples) -> tuple[Side, ...]:
    """(decoder,): inputs and targets in one sequence; the inputs see each other, only the targets are predicted."""
    inputs, targets, starts = examples
    if inputs is None:
        order = ragged.index_within(targets.lengths).astype(np.int32)
        weights = np.ones(len(targets.values), np.float32)
        return (Side(shift_right(targets, starts), targets.values, weights, order, targets.lengths),)
    whole = ragged.join_pairs(inputs, targets)
    place = ragged.index_within(whole.lengths)
    num_inputs = np.repeat(inputs.lengths, whole.lengths)
    order = np.maximum(place - num_inputs, 0).astype(np.int32)
    weights = (place >= num_inputs).astype(np.float32)
    return (Side(shift_right(whole, starts), whole.values, weights, order, whole.lengths),)


def shift_right(sequences: Ragged, start_tokens: np.ndarray) -> np.ndarray:
    """Each sequence moved one to the right behind its start token; its last token is dropped. Flat, like the values."""
    shifted = np.empty_like(sequences.values)
    shifted[1:] = sequences.values[:-1]
    some = sequences.lengths > 0
    shifted[sequences.starts[some]] = start_tokens[some]
    return shifted
