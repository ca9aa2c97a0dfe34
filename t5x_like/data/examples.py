"""What passes between the pipeline and an objective: the context it works in, and the examples it makes.

Examples have one of two forms, and `render` turns either into the sides of a row:

  Examples   text to text: inputs and targets, for any kind of model (`encoder_decoder`, `decoder_only`)
  Side       tokens as the stack reads them, with what is predicted at each place (`in_place`): BERT, UniLM, GLM
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.vocabularies.load import Vocabulary
from t5x_like.vocabularies.special_tokens import SpecialTokens


class Context(NamedTuple):
    """What an objective works in.

    lengths      tokens per row, {"inputs": 512, "targets": 114} with an encoder, {"targets": 1024} without (T5X's
                 task_feature_lengths)
    special      the ids with a role
    vocab_size   ids of the vocabulary, special ones included
    vocabulary   the vocabulary itself, for objectives that look at pieces or at text
    """

    lengths: dict[str, int]
    special: SpecialTokens
    vocab_size: int
    vocabulary: Vocabulary | None = None

    def ordinary_ids(self) -> np.ndarray:
        """The ids that stand for text: all but those with a role, int64."""
        return np.setdiff1d(np.arange(self.vocab_size), [token for _, token in self.special.roles()])

    def begins_word(self) -> np.ndarray:
        """bool [vocab_size]: does a piece begin a word? Those behind it, up to the next that does, go on with it."""
        if self.vocabulary is None:
            raise ValueError("this objective looks at the pieces of words, but the context has no vocabulary: give it")
        return self.vocabulary.begins_word


class Examples(NamedTuple):
    """Text to text, n examples. Ids end with EOS where the method has one; the lengths fit the rows.

    inputs        Ragged or None: what is given
    targets       Ragged: what is to be predicted
    start_tokens  int32 [n]: the token that stands before the first one of the decoder
    """

    inputs: Ragged | None
    targets: Ragged
    start_tokens: np.ndarray

    @property
    def num_examples(self) -> int:
        return len(self.targets.lengths)

    def take(self, indices: np.ndarray) -> "Examples":
        """The examples at `indices`, in that order."""
        inputs = self.inputs and ragged.take(self.inputs, indices)
        return Examples(inputs, ragged.take(self.targets, indices), self.start_tokens[indices])


class Side(NamedTuple):
    """One side of rows before packing: arrays over the tokens of all examples, int32 but for weights (float32).

    targets, loss_weights   None where the side predicts nothing
    lengths                 int64 [n], tokens of each example
    positions               [tokens, P], or None: counted from 0 in each example
    parts                   or None: 0, 1, ... for texts of one example that do not see each other
    type_ids, aux           as in `Features`; a place that aux tells is a distance from the token that it belongs to
    """

    tokens: np.ndarray
    targets: np.ndarray | None
    loss_weights: np.ndarray | None
    attn_order: np.ndarray
    lengths: np.ndarray
    positions: np.ndarray | None = None
    type_ids: np.ndarray | None = None
    parts: np.ndarray | None = None
    aux: Mapping[str, np.ndarray] = MappingProxyType({})

    @classmethod
    def bidirectional(cls, tokens: Ragged, targets: np.ndarray, loss_weights: np.ndarray, **more) -> "Side":
        """Every token sees its whole example: what an Encoder reads."""
        order = np.zeros(len(tokens.values), np.int32)
        return cls(tokens.values, targets, loss_weights.astype(np.float32), order, tokens.lengths, **more)

    @property
    def num_examples(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """Where each example begins, int64 [n]."""
        return np.cumsum(self.lengths) - self.lengths

    def take(self, indices: np.ndarray) -> "Side":
        """The examples at `indices`, in that order."""
        places = ragged.gather(np.arange(len(self.tokens)), self.starts[indices], self.lengths[indices]).values
        return self.map_tokens(lambda array: array[places])._replace(lengths=self.lengths[indices])

    def cut(self, start: int, stop: int) -> "Side":
        """Examples start ... stop - 1."""
        begin = int(self.lengths[:start].sum())
        end = begin + int(self.lengths[start:stop].sum())
        return self.map_tokens(lambda array: array[begin:end])._replace(lengths=self.lengths[start:stop])

    def map_tokens(self, function: Callable[[np.ndarray], np.ndarray]) -> "Side":
        """The function of every array that has a value for each token."""
        values = (None if array is None else function(array) for array in self[:4])
        others = (None if array is None else function(array) for array in self[5:8])
        aux = {name: function(array) for name, array in self.aux.items()}
        return Side(*values, self.lengths, *others, aux)


def no_examples(objective: Any, context: Context) -> Examples | Side:
    """What an objective makes of no documents: nothing, in arrays of the names and types of its examples."""
    nothing = {name: Ragged(np.zeros(0, np.int32), np.zeros(0, np.int64)) for name in objective.reads}
    return objective.examples(np.random.default_rng(0), Documents(nothing, np.zeros(0, bool)), context)


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
        joined([side.parts for side in sides], zeros),
        aux,
    )
