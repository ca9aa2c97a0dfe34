"""What a weight of ours is called in Hugging Face's transformers, and how its numbers are laid out there.

  linear("stack/layers/{}/mlp/up", "model.layers.{}.mlp.up_proj.weight")     ours [D, F]      theirs [F, D]
  linear("stack/layers/{}/attention/query", "...q_proj.weight")              ours [D, N, H]   theirs [N * H, D]

"{}" is the number of a layer. Every rule goes both ways and loses nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Arrays = Sequence[np.ndarray]


class Rule(NamedTuple):
    """Some weights of ours that are made of some of theirs.

    into   (their arrays, the shapes of ours) -> our arrays
    back   our arrays -> their arrays
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    into: Callable[[Arrays, Sequence[tuple[int, ...]]], Arrays]
    back: Callable[[Arrays], Arrays]


def keep(ours: str, theirs: str) -> Rule:
    """One layout: norms, embeddings."""
    return Rule((ours,), (theirs,), lambda arrays, shapes: arrays, lambda arrays: arrays)


def flat(ours: str, theirs: str) -> Rule:
    """A bias, [N, H] here and [N * H] there."""
    return Rule((ours,), (theirs,), reshaped, lambda arrays: [arrays[0].reshape(-1)])


def linear(ours: str, theirs: str, *, num_inputs: int = 1) -> Rule:
    """A matrix, inputs first here and outputs first there (torch.nn.Linear); our first `num_inputs` dims are inputs."""

    def into(arrays, shapes):
        return [arrays[0].T.reshape(shapes[0])]

    return Rule((ours,), (theirs,), into, lambda arrays: [matrix(arrays[0], num_inputs).T])


def plain(ours: str, theirs: str, *, num_inputs: int = 1) -> Rule:
    """A matrix with inputs first on both sides (GPT-2's Conv1D)."""
    return Rule((ours,), (theirs,), reshaped, lambda arrays: [matrix(arrays[0], num_inputs)])


def transposed(ours: str, theirs: str) -> Rule:
    return Rule((ours,), (theirs,), lambda arrays, shapes: [arrays[0].T], lambda arrays: [arrays[0].T])


def from_zero(ours: str, theirs: str) -> Rule:
    """A scale that is 1 + w there (Gemma)."""
    return Rule((ours,), (theirs,), lambda arrays, shapes: [arrays[0] + 1], lambda arrays: [arrays[0] - 1])


def after_rows(ours: str, theirs: str, *, unused: int) -> Rule:
    """A table whose first `unused` rows there are never read (BART, RoBERTa: positions begin at 2)."""

    def back(arrays):
        return [np.concatenate([np.zeros((unused, *arrays[0].shape[1:]), arrays[0].dtype), arrays[0]])]

    return Rule((ours,), (theirs,), lambda arrays, shapes: [arrays[0][unused:]], back)


def one_row(ours: str, theirs: str) -> Rule:
    """A table that stands there as a batch of one: [1, ...]."""
    return Rule((ours,), (theirs,), reshaped, lambda arrays: [arrays[0][None]])


def patch_kernel(ours: str, theirs: str, *, channels: int = 3) -> Rule:
    """A convolution over patches, [D, C, P, P] there; here a matrix of (row, column, channel), [P * P * C, D]."""

    def into(arrays, shapes):
        return [arrays[0].transpose(2, 3, 1, 0).reshape(shapes[0])]

    def back(arrays):
        P = math.isqrt(arrays[0].shape[0] // channels)
        return [arrays[0].reshape(P, P, channels, -1).transpose(3, 2, 0, 1)]

    return Rule((ours,), (theirs,), into, back)


def stacked_biases(ours: Sequence[str], theirs: str) -> Rule:
    """Biases [N, H] each, one after another there."""

    def into(arrays, shapes):
        parts = np.split(arrays[0], len(shapes))
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    return Rule(tuple(ours), (theirs,), into, lambda arrays: [np.concatenate([array.reshape(-1) for array in arrays])])


def stacked(ours: Sequence[str], theirs: str) -> Rule:
    """Matrices with the same inputs, one after another along the outputs: [D, ...] each, theirs [sum of outputs, D]."""

    def into(arrays, shapes):
        ends = np.cumsum([math.prod(shape[1:]) for shape in shapes])[:-1]
        parts = np.split(arrays[0], ends)
        return [part.T.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    return Rule(tuple(ours), (theirs,), into, lambda arrays: [np.concatenate([matrix(a, 1).T for a in arrays])])


def experts(ours: str, theirs: str) -> Rule:
    """[E, I, O] here, a matrix [O, I] per expert there; "{e}" is the expert's number."""

    def back(arrays):
        return [expert.T for expert in arrays[0]]

    return Rule((ours,), (theirs,), lambda arrays, shapes: [np.stack([array.T for array in arrays])], back)


def by_head(letter: str, theirs: str, *, bias: bool = False) -> Rule:
    """Query, key and value of one head, then of the next (GPT-NeoX, BLOOM): theirs [N * 3 * H, D], or [N * 3 * H].

    `letter` is the name of our attention, such as "stack/layers/{}/attention".
    """
    ours = tuple(f"{letter}/{name}{'_bias' if bias else ''}" for name in ("query", "key", "value"))

    def into(arrays, shapes):
        *_, N, H = shapes[0]
        parts = np.moveaxis(arrays[0].reshape(N, 3, H, -1), 1, 0)  # [3, N, H, D]
        return [np.moveaxis(part, 2, 0).reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def back(arrays):
        *_, N, H = arrays[0].shape
        parts = [np.moveaxis(a.reshape(-1, N, H), 0, 2) for a in arrays]  # each [N, H, D]
        whole = np.stack(parts, axis=1)
        return [whole.reshape(-1) if bias else whole.reshape(N * 3 * H, -1)]

    return Rule(ours, (theirs,), into, back)


def reshaped(arrays: Arrays, shapes: Sequence[tuple[int, ...]]) -> Arrays:
    return [arrays[0].reshape(shapes[0])]


def matrix(array: np.ndarray, num_inputs: int) -> np.ndarray:
    """[inputs, outputs]."""
    return array.reshape(math.prod(array.shape[:num_inputs]), -1)
