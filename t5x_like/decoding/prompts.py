"""Ids to the rows that a model continues or scores: left-aligned, one example a row, padded to a common length.

Lengths are rounded up to a power of two, so that inputs of any length compile a few programs only.
"""

import numpy as np

from t5x_like.features import Features


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
