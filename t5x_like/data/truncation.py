"""What is left of a text that is too long: policies, each a function of (rng, texts, length), chosen by name.

Pairs of texts are cut together, the longer side first: `pairing.shortened`.
"""

from collections.abc import Callable

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.ragged import Ragged


def head(rng: np.random.Generator, texts: Ragged, length: int) -> Ragged:
    """The first `length` tokens of every text."""
    del rng  # nothing to sample
    return ragged.truncate(texts, length)


def tail(rng: np.random.Generator, texts: Ragged, length: int) -> Ragged:
    """The last `length` tokens of every text."""
    del rng  # nothing to sample
    kept = np.minimum(texts.lengths, length)
    return ragged.gather(texts.values, texts.starts + texts.lengths - kept, kept)


def random_chunk(rng: np.random.Generator, texts: Ragged, length: int) -> Ragged:
    """`length` tokens in a row of every text that has more: where they begin is uniform over all places that fit.

    T5's select_random_chunk draws among the multiples of `length` instead, so that its chunk may be shorter.
    """
    kept = np.minimum(texts.lengths, length)
    return ragged.gather(texts.values, texts.starts + rng.integers(0, texts.lengths - kept, endpoint=True), kept)


POLICIES: dict[str, Callable[[np.random.Generator, Ragged, int], Ragged]] = {
    "head": head,
    "tail": tail,
    "random_chunk": random_chunk,
}
