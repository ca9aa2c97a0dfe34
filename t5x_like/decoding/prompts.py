"""Ids to the rows that a model continues or scores: left-aligned, one example a row, padded to a common length.

  given 5 6   targets 8 9 </s>     what is continued           what is scored
  InEncoder                        5 6 </s> | <pad>            5 6 </s> | <pad> 8 9
  InPrefix (seen both ways)        <pad> 5 6 </s>              <pad> 5 6 </s> 8 9
  InText (causal)                  <pad> 5 6                   <pad> 5 6 8 9

Lengths are rounded up to a power of two, so that inputs of any length compile a few programs only.
"""

import dataclasses

import numpy as np

from t5x_like.features import Features
from t5x_like.vocabularies.special_tokens import SpecialTokens

Ids = list[list[int]]
LENGTHS = tuple(1 << power for power in range(24))  # of rows


@dataclasses.dataclass(frozen=True)
class InEncoder:
    """What is given is read by an encoder."""

    special: SpecialTokens

    def prompt(self, given: Ids) -> Features:
        return encoder_decoder_prompt([[*ids, self.special.eos] for ids in given], self.special.pad)

    def scored(self, given: Ids, targets: Ids) -> Features:
        return with_targets(self.prompt(given), targets, self.special.pad)


@dataclasses.dataclass(frozen=True)
class InPrefix:
    """What is given, up to its EOS, is a prefix in which every token sees every other (prefix LM, supervised pairs)."""

    special: SpecialTokens

    def prompt(self, given: Ids) -> Features:
        rows = [[self.special.pad, *ids, self.special.eos] for ids in given]
        return decoder_prompt(rows, [len(row) for row in rows])

    def scored(self, given: Ids, targets: Ids) -> Features:
        prefixes = [[*ids, self.special.eos] for ids in given]
        return continued(prefixes, targets, self.special.pad, [1 + len(ids) for ids in prefixes])


@dataclasses.dataclass(frozen=True)
class InText:
    """What is given is the beginning of the text."""

    special: SpecialTokens

    def prompt(self, given: Ids) -> Features:
        return decoder_prompt([[self.special.pad, *ids] for ids in given], [1] * len(given))

    def scored(self, given: Ids, targets: Ids) -> Features:
        return continued(given, targets, self.special.pad, [1] * len(given))


Arrangement = InEncoder | InPrefix | InText


def arrangement_of(batch: Features, special: SpecialTokens) -> Arrangement:
    """How the model that trains on `batch` expects what it is given."""
    if batch.encoder is not None:
        return InEncoder(special)
    in_prefix = (batch.segment_ids > 0) & (batch.attn_order == 0) & (batch.positions[..., 0] > 0)
    return InPrefix(special) if in_prefix.any() else InText(special)


def encoder_decoder_prompt(inputs: list[list[int]], start: int) -> Features:
    """Encoder rows of `inputs`, and a decoder that has only its start token."""
    encoder = side(inputs, [np.zeros(len(ids), np.int32) for ids in inputs])
    return side([[start]] * len(inputs), [np.zeros(1, np.int32)] * len(inputs))._replace(encoder=encoder)


def decoder_prompt(tokens: list[list[int]], num_prefix: list[int]) -> Features:
    """Decoder rows; the first `num_prefix` tokens of a row see each other (1: causal)."""
    orders = [np.maximum(np.arange(len(ids)) - n + 1, 0) for ids, n in zip(tokens, num_prefix, strict=True)]
    return side(tokens, orders)


def with_targets(prompt: Features, targets: list[list[int]], start: int) -> Features:
    """An encoder-decoder prompt with a decoder that reads and predicts `targets`."""
    shifted = [[start, *ids[:-1]] for ids in targets]
    decoder = side(shifted, [np.arange(len(ids)) for ids in targets])
    length = decoder.tokens.shape[1]
    weights = [np.ones(len(ids), np.float32) for ids in targets]
    return decoder._replace(
        targets=pad(targets, length), loss_weights=pad(weights, length, np.float32), encoder=prompt.encoder
    )


def continued(given: Ids, targets: Ids, start: int, num_prefix: list[int]) -> Features:
    """Decoder rows that read `given` and `targets`, and predict the targets alone."""
    whole = [[*before, *after] for before, after in zip(given, targets, strict=True)]
    rows = decoder_prompt([[start, *ids[:-1]] for ids in whole], num_prefix)
    length = rows.tokens.shape[1]
    weights = [[0.0] * len(before) + [1.0] * len(after) for before, after in zip(given, targets, strict=True)]
    return rows._replace(targets=pad(whole, length), loss_weights=pad(weights, length, np.float32))


def side(tokens: list[list[int]], orders: list[np.ndarray]) -> Features:
    length = round_up(max(map(len, tokens)))
    return Features(
        tokens=pad(tokens, length),
        targets=None,
        loss_weights=None,
        segment_ids=pad([np.ones(len(ids), np.int32) for ids in tokens], length),
        positions=pad([np.arange(len(ids)) for ids in tokens], length)[..., None],
        attn_order=pad(orders, length),
    )


def pad(rows: list, length: int, dtype=np.int32) -> np.ndarray:
    """[n, length], zeros where a row is shorter."""
    array = np.zeros((len(rows), length), dtype)
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = row
    return array


def round_up(length: int) -> int:
    return 1 << max(length - 1, 0).bit_length()
