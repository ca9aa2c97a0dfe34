"""Which of two kinds of text one is: logistic regression over hashed words and pairs of words, trained in the pipeline.

What fastText does for DCLM and CCNet's descendants with far fewer numbers: one weight for each bucket of a hash.

  features  words and word pairs of a text, hashed to 2**bits buckets; log(1 + count), scaled to length 1
  model     p = sigmoid(features . weights + bias), with both kinds counted as if there were as many of each
  training  L2-penalised, by L-BFGS (scipy): convex, so that the result does not depend on the order of texts
  held out  one text in ten, told by a hash of its words, so that copies are on one side; the card tells the AUC there
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.special

from t5x_like.corpus import learning
from t5x_like.corpus.hashing import NEXT, finish
from t5x_like.corpus.minhash import word_hashes, words_of
from t5x_like.corpus.word_lists import WordList
from t5x_like.vocabularies.sampling import sample

_WEIGHTS = "weights.npy"


def features_of(texts: Sequence[str], bits: int) -> scipy.sparse.csr_matrix:
    """float32 [texts, 2**bits], rows of length 1 (or 0, for a text without words)."""
    indices, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for text in texts:
        words = word_hashes(words_of(text))
        pairs = finish(words[:-1] * NEXT + words[1:])
        bucket, count = np.unique(np.concatenate([words, pairs]) >> np.uint64(64 - bits), return_counts=True)
        weight = np.log1p(count)
        indices.append(bucket.astype(np.int64))
        values.append((weight / max(np.sqrt(weight @ weight), 1e-12)).astype(np.float32))
    starts = np.cumsum([0, *map(len, indices[1:])])
    shape = (len(texts), 1 << bits)
    return scipy.sparse.csr_matrix((np.concatenate(values), np.concatenate(indices), starts), shape=shape)


def fit(features: scipy.sparse.csr_matrix, labels: np.ndarray, penalty: float) -> np.ndarray:
    """The weights and, last, the bias: float32 [buckets + 1]. `labels` bool [texts], both kinds in it."""
    signs = np.where(labels, 1.0, -1.0)
    share = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    transposed = features.T.tocsr()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = signs * (features @ weights[:-1] + weights[-1])
        slope = -share * signs * scipy.special.expit(-margin)
        value = share @ np.logaddexp(0.0, -margin) + 0.5 * penalty * weights[:-1] @ weights[:-1]
        return float(value), np.append(transposed @ slope + penalty * weights[:-1], slope.sum())

    start = np.zeros(features.shape[1] + 1)
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7})
    return found.x.astype(np.float32)


def area_under_curve(values: np.ndarray, labels: np.ndarray) -> float:
    """The probability that a text of the kind has a higher value than one of the other; ties count half."""
    distinct, inverse = np.unique(values, return_inverse=True)
    yes, no = (np.bincount(inverse[kind], minlength=len(distinct)) for kind in (labels, ~labels))
    below = np.cumsum(no) - no
    return float((yes @ (below + 0.5 * no)) / (yes.sum() * no.sum()))


def train(folder: pathlib.Path, texts: Sequence[str], labels: np.ndarray, *, bits: int, penalty: float) -> dict:
    """Writes the weights; returns the card."""
    held_out = np.array([_is_held_out(text) for text in texts], bool)
    for kind, name in ((labels, "of the kind"), (~labels, "of the other kind")):
        if not (kind & ~held_out).any() or not (kind & held_out).any():
            raise ValueError(f"{int(kind.sum())} texts {name} to learn from: give more, one in ten of each is held out")
    features = features_of(texts, bits)
    weights = fit(features[~held_out], labels[~held_out], penalty)
    np.save(folder / _WEIGHTS, weights)
    value = features[held_out] @ weights[:-1] + weights[-1]
    return {
        "texts": [int(labels.sum()), int((~labels).sum())],
        "held out": int(held_out.sum()),
        "AUC": round(area_under_curve(value, labels[held_out]), 4),
        "right": round(float(((value > 0) == labels[held_out]).mean()), 4),
    }


def _is_held_out(text: str) -> bool:
    words = word_hashes(words_of(text))
    return int(finish(words.sum(dtype=np.uint64, keepdims=True))[0] % np.uint64(10)) == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainLinear:
    """Scores between 0 and 1: how much more like the texts of `good` than like those of `ordinary` (DCLM, 2406.11794).

    good, ordinary   readers; ordinary text is often the corpus itself
    characters       most characters of each that are used, a random sample
    """

    good: Any
    ordinary: Any
    characters: int = 20_000_000
    bits: int = 18
    penalty: float = 1e-5
    seed: int = 0

    def texts(self) -> dict[str, Any]:
        return {"good": self.good, "ordinary": self.ordinary}

    def train(self, folder: pathlib.Path) -> dict:
        good, ordinary = (
            sample(learning.texts_of(reader), max_characters=self.characters, seed=self.seed)
            for reader in (self.good, self.ordinary)
        )
        labels = np.arange(len(good) + len(ordinary)) < len(good)
        return train(folder, [*good, *ordinary], labels, bits=self.bits, penalty=self.penalty)

    def trained(self, folder: str) -> "LinearFolder":
        return LinearFolder(folder=folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFromWordList:
    """Scores between 0 and 1: how like the texts in which a word of the lists stands, by their other words.

    words      the list that gives the labels, of NSFW words for instance; its words are taken out of every text before
               training, so that the model learns what stands around
    examples   a reader of texts with and without
    """

    words: WordList
    examples: Any
    language: str = "en"
    characters: int = 20_000_000
    bits: int = 18
    penalty: float = 1e-5
    seed: int = 0

    def __post_init__(self):
        if self.language not in self.words.paths:
            raise ValueError(f"language {self.language!r}: the word lists are of {sorted(self.words.paths)}")

    def texts(self) -> dict[str, Any]:
        return {"examples": self.examples}

    def train(self, folder: pathlib.Path) -> dict:
        texts = sample(learning.texts_of(self.examples), max_characters=self.characters, seed=self.seed)
        labels = np.array([self.words.reason(text, self.language) is not None for text in texts], bool)
        without = [self.words.without(text, self.language) for text in texts]
        return train(folder, without, labels, bits=self.bits, penalty=self.penalty)

    def trained(self, folder: str) -> "LinearFolder":
        return LinearFolder(folder=folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearFolder:
    """A model that was trained for an earlier corpus: its folder under models/."""

    folder: str

    def __post_init__(self):
        if not pathlib.Path(self.folder, _WEIGHTS).is_file():
            raise FileNotFoundError(f"{self.folder} holds no linear model: name a folder under models/ of a corpus")

    def texts(self) -> dict[str, Any]:
        return {}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        weights = _weights(self.folder)
        bits = (len(weights) - 1).bit_length() - 1
        return scipy.special.expit(features_of(texts, bits) @ weights[:-1].astype(np.float64) + weights[-1])


@functools.lru_cache(maxsize=8)
def _weights(folder: str) -> np.ndarray:
    return np.load(pathlib.Path(folder, _WEIGHTS), mmap_mode="r")
