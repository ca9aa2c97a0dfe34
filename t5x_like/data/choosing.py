"""Which tokens a masked language model predicts: units (tokens, words, phrases), a budget, and a way to spend it.

  tokens   [CLS] un ##fold ##ed my map [SEP]
  units           0  0     0    1  2             -1 where nothing may be hidden

Pure functions of (rng, units). A choice that depends on those before it goes on in all sequences at once: the loops
here are over choices, never over sequences.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.drawing import uniform
from t5x_like.data.ragged import Ragged


class Units(NamedTuple):
    """Runs of tokens that are hidden together, in all sequences of a `Ragged`, numbered in their order.

    of_token   int64 [tokens]: the unit of each token, -1 outside
    starts     int64 [units]: the place of the first token in the flat values
    lengths    int64 [units]: how many tokens
    sequence   int64 [units]: which sequence
    num_sequences
    """

    of_token: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    sequence: np.ndarray
    num_sequences: int

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """True at the tokens of the chosen units [units], a flat mask."""
        return np.append(chosen, False)[self.of_token]

    def per_sequence(self) -> np.ndarray:
        """int64 [sequences]: how many units each has."""
        return np.bincount(self.sequence, minlength=self.num_sequences)


def find_units(lengths: np.ndarray, candidates: np.ndarray, begins: np.ndarray | None = None) -> Units:
    """Units of `candidates` [tokens]: one begins where `begins` is true, and behind what is no candidate.

    Without `begins` every candidate is one of its own.
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if begins is None:
        starts = np.flatnonzero(candidates)
        of_token = np.where(candidates, np.cumsum(candidates) - 1, -1)
        return Units(of_token, starts, np.ones(len(starts), np.int64), rows[starts], len(lengths))
    before = np.zeros_like(candidates)
    before[1:] = candidates[:-1]
    before[(np.cumsum(lengths) - lengths)[lengths > 0]] = False
    is_start = candidates & (begins | ~before)
    starts = np.flatnonzero(is_start)
    of_token = np.where(candidates, np.cumsum(is_start) - 1, -1)
    sizes = np.bincount(of_token[candidates], minlength=len(starts))
    return Units(of_token, starts, sizes, rows[starts], len(lengths))


def bert_budget(lengths: np.ndarray, rate: float, most: int | None) -> np.ndarray:
    """min(most, max(1, round(rate * length))), as BERT counts: the length is that with [CLS] and [SEP]."""
    budget = np.maximum(np.round(rate * lengths), 1).astype(np.int64)
    return budget if most is None else np.minimum(budget, most)


def stochastic_budget(rng: np.random.Generator, counts: np.ndarray, rate: float) -> np.ndarray:
    """rate * count, rounded up with the probability of its fraction (fairseq's RoBERTa)."""
    return (rate * counts + uniform(rng, np.arange(len(counts)))).astype(np.int64)


def units_by_count(rng: np.random.Generator, units: Units, counts: np.ndarray) -> np.ndarray:
    """`counts` [sequences] random units of each sequence, bool [units]."""
    chosen = np.zeros(len(units.sequence), bool)
    order, rank = _shuffled(rng, units)
    chosen[order[rank < counts[units.sequence[order]]]] = True
    return chosen


def units_within_budget(rng: np.random.Generator, units: Units, budgets: np.ndarray) -> np.ndarray:
    """Random units of `budgets` [sequences] tokens at most, bool [units]; one that is too long is passed over."""
    chosen, left = np.zeros(len(units.sequence), bool), budgets.copy()
    waiting, _ = _shuffled(rng, units)
    while len(waiting):
        sequence, length = units.sequence[waiting], units.lengths[waiting]
        total = np.cumsum(length)
        is_first = np.diff(sequence, prepend=-1) != 0
        total -= (total - length)[is_first][np.cumsum(is_first) - 1]
        fits = total <= left[sequence]
        chosen[waiting[fits]] = True
        left -= np.bincount(sequence[fits], length[fits], len(left)).astype(np.int64)
        waiting = waiting[~fits]
        waiting = waiting[units.lengths[waiting] <= left[units.sequence[waiting]]]
    return chosen


def ngrams_within_budget(
    rng: np.random.Generator, units: Units, budgets: np.ndarray, shares: tuple[float, ...]
) -> np.ndarray:
    """Random runs of n units, n drawn by `shares` (of 1, 2, ...), until the budgets are spent; bool [units].

    ALBERT's rule: starts come in random order; where a run is too long for what is left, shorter ones are tried, and
    one that meets a chosen unit is passed over.
    """
    num_units = len(units.sequence)
    tokens_before = np.concatenate([[0], np.cumsum(units.lengths)])
    counts = units.per_sequence()
    last = np.cumsum(counts)  # one behind the last unit of each sequence
    order, _ = _shuffled(rng, units)
    chosen, left = np.zeros(num_units + len(shares), bool), budgets.copy()
    active, step = np.flatnonzero((counts > 0) & (left > 0)), 0
    while len(active):
        first = order[(last - counts)[active] + step]
        room = np.minimum(last[active] - first, len(shares))
        size = lengths_by_shares(rng, room, shares)
        for _ in shares[1:]:
            size -= (size > 1) & (tokens_before[first + size] - tokens_before[first] > left[active])
        cost = tokens_before[first + size] - tokens_before[first]
        run = first[:, None] + np.arange(len(shares))
        inside = np.arange(len(shares)) < size[:, None]
        takes = (cost <= left[active]) & ~(chosen[run] & inside).any(axis=1)
        chosen[run[inside & takes[:, None]]] = True
        left[active[takes]] -= cost[takes]
        step += 1
        active = active[(counts[active] > step) & (left[active] > 0)]
    return chosen[:num_units]


def geometric_spans(
    rng: np.random.Generator, lengths: np.ndarray, words: Units, budgets: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """SpanBERT's choice (arXiv:1907.10529, section 3.1, and the released code), a flat mask of exactly the budgets.

    A span has n words, n drawn by `shares`, and begins with the word of a uniformly random token that is not hidden
    yet. It may run over hidden tokens, which cost nothing, and is cut where the budget ends. Every token is in a word.
    """
    mask, left = np.zeros(lengths.sum(), bool), np.minimum(budgets, lengths)
    starts = np.cumsum(lengths) - lengths
    last_word = np.cumsum(words.per_sequence())
    word_starts = np.append(words.starts, lengths.sum())
    active = np.flatnonzero(left > 0)
    while len(active):
        anchor = starts[active] + (rng.random(len(active)) * lengths[active]).astype(np.int64)
        size = lengths_by_shares(rng, np.full(len(active), len(shares)), shares)
        drawn, word = active[~mask[anchor]], words.of_token[anchor[~mask[anchor]]]
        end = word_starts[np.minimum(word + size[~mask[anchor]], last_word[drawn])]
        begin = word_starts[word]
        places = begin[:, None] + np.arange((end - begin).max(initial=0))
        is_new = (places < end[:, None]) & ~mask[np.minimum(places, len(mask) - 1)]
        is_new &= np.cumsum(is_new, axis=1) <= left[drawn, None]
        mask[places[is_new]] = True
        left[drawn] -= is_new.sum(axis=1)
        active = active[left[active] > 0]
    return mask


def lengths_by_shares(rng: np.random.Generator, longest: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """A length of 1 ... longest[i] for each i, by the shares of 1, 2, ... among those that are allowed; int64."""
    cumulative = np.cumsum(shares)
    drawn = rng.random(len(longest)) * cumulative[longest - 1]
    return np.minimum(np.searchsorted(cumulative, drawn, side="right") + 1, longest)


@functools.cache
def geometric_shares(p: float, longest: int) -> np.ndarray:
    """Shares of the lengths 1 ... longest of a geometric distribution, cut off and renormalised."""
    shares = p * (1 - p) ** np.arange(longest)
    return shares / shares.sum()


def runs(lengths: np.ndarray, mask: np.ndarray) -> Units:
    """The runs of true in a flat mask, which do not reach from one sequence into the next."""
    return find_units(lengths, mask, np.zeros_like(mask))


def _shuffled(rng: np.random.Generator, units: Units) -> tuple[np.ndarray, np.ndarray]:
    """(units with those of a sequence in random order, the sequences in theirs; the place of each in its sequence)."""
    order = np.argsort(units.sequence + uniform(rng, units.sequence))
    return order, ragged.index_within(units.per_sequence())


def inside(framed: Ragged) -> np.ndarray:
    """True at all tokens but the first and the last of each sequence: those between [CLS] and [SEP]."""
    candidates = np.ones(len(framed.values), bool)
    candidates[framed.starts] = False
    candidates[framed.starts + framed.lengths - 1] = False
    return candidates
