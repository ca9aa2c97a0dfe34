"""Documents to pieces that fit a row. Nothing is lost and nothing is padded; the last piece is shorter."""

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.ragged import Ragged


def concatenate_and_split(documents: Ragged, length: int) -> Ragged:
    """Joins all documents without separators and cuts every `length` tokens (T5's reduce_concat_tokens)."""
    return Ragged(documents.values, piece_lengths(np.array([documents.lengths.sum()]), length))


def split_documents(documents: Ragged, length: int) -> Ragged:
    """Cuts each document every `length` tokens; no piece holds two documents. Empty documents vanish."""
    return Ragged(documents.values, piece_lengths(documents.lengths, length))


def whole_on_both_sides(lengths: dict[str, int]) -> int:
    """How many tokens fit a row that holds a text twice, with an EOS each: damaged as inputs, and whole as targets."""
    room = min(lengths.values()) if "inputs" in lengths else lengths["targets"] // 2
    if room < 3:
        raise ValueError(f"lengths {lengths} leave no room for a text on both sides: make them longer")
    return room - 1


def piece_lengths(lengths: np.ndarray, length: int) -> np.ndarray:
    """The lengths of the pieces when sequences of `lengths` are cut every `length`: [5 2], 3 gives [3 2 2]."""
    num_pieces = -(-lengths // length)
    pieces = np.full(num_pieces.sum(), length, np.int64)
    last = np.cumsum(num_pieces)[num_pieces > 0] - 1
    pieces[last] = (lengths - (num_pieces - 1) * length)[num_pieces > 0]
    return pieces


def windows(stream: np.ndarray, length: int) -> tuple[np.ndarray, Ragged]:
    """Cuts a stream into windows of `length` targets; returns the token before each window, [n], and the windows.

      stream 1 2 3 4 5 6, length 2   ->   before 1 3 5, windows [2 3] [4 5] [6]

    Every token but the first is predicted once, each from at least one token of context.
    """
    lengths = piece_lengths(np.array([max(len(stream) - 1, 0)]), length)
    starts = np.cumsum(lengths) - lengths
    return stream[starts], ragged.gather(stream, starts + 1, lengths)
