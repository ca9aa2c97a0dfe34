"""Features of documents for methods that read more than tokens, made from the text alone: rough, but real.

Each is a function of (documents, vocabulary, training documents) that gives a number for every token.

entities   runs of words that begin with a capital letter, by their pieces: 2 e begins entity e, 2 e + 1 goes on
relations  two names with one or two tokens between them are related, and the first of these tokens names the relation
similar    for each token the one with the most alike neighbours in the training text, 0 for frequent ones
"""

import functools

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.mentions import find_mentions
from t5x_like.objectives.relation_contrast import HEADS

NUM_ENTITIES = 2000


def entities(documents: list[np.ndarray], vocabulary, training=None) -> list[np.ndarray]:
    begins = vocabulary.begins_word
    pieces = np.array([piece.lstrip()[:1] for piece in vocabulary.pieces(range(vocabulary.size))])
    capital = np.array([piece.isupper() for piece in pieces])
    made = []
    for ids in documents:
        word = np.cumsum(begins[ids]) if len(ids) else ids
        starts = np.flatnonzero(np.diff(word, prepend=-1))
        is_name = np.repeat(capital[ids[starts]], np.diff(np.append(starts, len(ids))))
        first = is_name & ~np.concatenate([[False], is_name[:-1]])
        run = np.cumsum(first)
        sums = np.bincount(run, ids * is_name, minlength=run.max(initial=0) + 1).astype(np.int64)
        number = sums[run] * 2654435761 % NUM_ENTITIES + 1
        made.append(np.where(is_name, 2 * number + ~first, 0).astype(np.int32))
    return made


def relations(documents: list[np.ndarray], vocabulary, training=None) -> list[np.ndarray]:
    made = []
    for ids, names in zip(documents, entities(documents, vocabulary), strict=True):
        found = find_mentions(ragged.from_list([names]))
        behind = found.starts[:-1] + found.lengths[:-1]
        near = np.flatnonzero((found.starts[1:] - behind <= 2) & (found.entity[1:] != found.entity[:-1]))
        near = near[found.starts[near + 1] > behind[near]]
        values = np.zeros(len(ids), np.int32)
        values[found.starts[near + 1]] = 1 + ids[behind[near]] * HEADS + found.entity[near]
        made.append(values)
    return made


def similar(documents: list[np.ndarray], vocabulary, training: list[np.ndarray]) -> list[np.ndarray]:
    table = _neighbours(np.concatenate(training).tobytes(), vocabulary.size)
    return [table[ids] for ids in documents]


@functools.cache
def _neighbours(tokens: bytes, size: int) -> np.ndarray:
    """int32 [size]: the token whose left and right neighbours are the most similar (positive PMI)."""
    ids = np.frombuffer(tokens, np.int32)
    counts = np.zeros((size, 2 * size), np.float32)
    np.add.at(counts, (ids[1:], ids[:-1]), 1)
    np.add.at(counts, (ids[:-1], size + ids[1:]), 1)
    total, rows, columns = counts.sum(), counts.sum(1, keepdims=True), counts.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        vectors = np.nan_to_num(np.maximum(np.log(counts * total / (rows * columns)), 0), posinf=0, neginf=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    best = alike.argmax(axis=1).astype(np.int32)
    return np.where((rows[:, 0] > 0) & (alike.max(axis=1) > 0.1), best, 0).astype(np.int32)


FEATURES = {"entities": entities, "relations": relations, "similar": similar}
