"""Uniform numbers for things of sequences: any, or the same for a text whenever and beside whatever it is read.

uniform(np.random.default_rng(0), owners)        as many as there are owners
uniform(ByText.of(texts, versions), owners)      those of each text follow from its tokens and its version alone
"""

import functools

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.ragged import Ragged

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@functools.singledispatch
def uniform(rng: np.random.Generator, owners: np.ndarray) -> np.ndarray:
    """float64 [n] in [0, 1): a number for each of n things; `owners` [n] are their sequences, in order."""
    return rng.random(len(owners))


class ByText:
    """In place of a generator where `uniform` is all that is drawn. Call by call, the numbers are others."""

    def __init__(self, seeds: np.ndarray):
        self._seeds, self._num_calls = seeds, 0

    @classmethod
    def of(cls, texts: Ragged, versions: np.ndarray) -> "ByText":
        """`versions` [sequences]: one text has other numbers in each."""
        place = ragged.index_within(texts.lengths).astype(np.uint64)
        sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed(texts.values.astype(np.uint64) + place * GOLDEN))])
        # uint64 wraps around, so differences of sums are exact.
        of_tokens = sums[texts.starts + texts.lengths] - sums[texts.starts]
        return cls(mixed(of_tokens + versions.astype(np.uint64) * FIRST))

    def draw(self, owners: np.ndarray) -> np.ndarray:
        self._num_calls += 1
        counts = np.bincount(owners, minlength=len(self._seeds))
        number = ragged.index_within(counts).astype(np.uint64) + (np.uint64(self._num_calls) << np.uint64(40))
        return (mixed(self._seeds[owners] + number * GOLDEN) >> np.uint64(11)) * 2.0**-53


@uniform.register
def _(rng: ByText, owners: np.ndarray) -> np.ndarray:
    return rng.draw(owners)


def mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014, figure 16), on uint64 that wrap around."""
    x = (x ^ (x >> np.uint64(30))) * FIRST
    x = (x ^ (x >> np.uint64(27))) * SECOND
    return x ^ (x >> np.uint64(31))
