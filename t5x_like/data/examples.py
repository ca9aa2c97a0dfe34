"""What passes between the pipeline and an objective: the context it works in, and the examples it makes."""

from typing import NamedTuple

import numpy as np

from t5x_like.data.ragged import Ragged
from t5x_like.vocabularies.special_tokens import SpecialTokens


class Context(NamedTuple):
    """What an objective works in.

    lengths      tokens per row, {"inputs": 512, "targets": 114} with an encoder, {"targets": 1024} without (T5X's
                 task_feature_lengths)
    special      the ids with a role
    vocab_size   ids of the vocabulary, special ones included
    """

    lengths: dict[str, int]
    special: SpecialTokens
    vocab_size: int

    def ordinary_ids(self) -> np.ndarray:
        """The ids that stand for text: all but those with a role, int64."""
        return np.setdiff1d(np.arange(self.vocab_size), [token for _, token in self.special.roles()])


class Examples(NamedTuple):
    """Text to text, n examples. Ids end with EOS where the method has one; the lengths fit the rows.

    inputs        Ragged or None: what is given
    targets       Ragged: what is to be predicted
    start_tokens  int32 [n]: the token that stands before the first one of the decoder
    """

    inputs: Ragged | None
    targets: Ragged
    start_tokens: np.ndarray
