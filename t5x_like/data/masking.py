"""Which tokens are noise, and what becomes of them. Pure functions of (rng, lengths) or of (tokens, mask).

A mask is a flat bool array over a `Ragged`: true where the token is noise.
"""

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.ragged import Ragged


def random_spans(rng: np.random.Generator, lengths: np.ndarray, *, density: float, mean_span: float) -> np.ndarray:
    """T5's random_spans_noise_mask, bool [sum of lengths] (arXiv:1910.10683 section 3.1.4 and the released code).

    Noise and kept tokens are each split into the same number of non-empty spans, uniformly over all ways to do so, and
    alternate, a kept span first. A sequence of one token stays whole.
    """
    mask = np.zeros(lengths.sum(), bool)
    starts = np.cumsum(lengths) - lengths
    for length in np.unique(lengths[lengths > 1]):
        same = np.flatnonzero(lengths == length)
        num_noise, num_spans = noise_counts(int(length), density, mean_span)
        noise = compositions(rng, len(same), num_noise, num_spans)
        kept = compositions(rng, len(same), int(length) - num_noise, num_spans)
        span_lengths = np.stack([kept, noise], axis=2).ravel()
        is_noise = np.tile([False, True], len(same) * num_spans)
        noise_of_same = np.repeat(is_noise, span_lengths)
        if same[-1] - same[0] == len(same) - 1:  # as a rule: all pieces but the last have one length
            mask[starts[same[0]] : starts[same[0]] + len(noise_of_same)] = noise_of_same
        else:
            mask[starts[same][:, None] + np.arange(length)] = noise_of_same.reshape(-1, length)
    return mask


def random_roll(rng: np.random.Generator, lengths: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask of every sequence turned by a random number of places; what leaves at its end comes in at its front."""
    starts = np.cumsum(lengths) - lengths
    shift = rng.integers(0, np.maximum(lengths, 1))
    source = ragged.index_within(lengths) - np.repeat(shift, lengths)
    return mask[np.repeat(starts, lengths) + np.where(source < 0, source + np.repeat(lengths, lengths), source)]


def noise_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """(noise tokens, noise spans) of a sequence of `length` >= 2 tokens; rounds half to even, as TensorFlow does."""
    num_noise = min(max(round(length * density), 1), length - 1)
    return num_noise, min(max(round(num_noise / mean_span), 1), num_noise, length - num_noise)


def compositions(rng: np.random.Generator, n: int, total: int, parts: int) -> np.ndarray:
    """n uniformly random ways to write `total` as a sum of `parts` positive integers, int64 [n, parts]."""
    cuts = distinct_places(rng, n, total - 1, parts - 1) + 1
    return np.diff(cuts, axis=1, prepend=0, append=total)


def distinct_places(rng: np.random.Generator, n: int, num_places: int, count: int) -> np.ndarray:
    """n uniformly random sets of `count` of the numbers below `num_places`, each in order, int64 [n, count]."""
    if count * count > 2 * num_places:
        return smallest_of_keys(rng, n, num_places, count)
    # Numbers drawn with repetition, and drawn again as a whole until none repeats: of few among many that is 2 draws.
    chosen = np.empty((n, count), np.int64)
    missing = np.arange(n)
    while len(missing):
        drawn = np.sort(rng.integers(0, num_places, (len(missing), count)), axis=1)
        repeats = (drawn[:, 1:] == drawn[:, :-1]).any(axis=1)
        chosen[missing[~repeats]] = drawn[~repeats]
        missing = missing[repeats]
    return chosen


def smallest_of_keys(rng: np.random.Generator, n: int, num_places: int, count: int) -> np.ndarray:
    """`distinct_places` by a random key for every place: the places of the smallest keys."""
    if not count:
        return np.zeros((n, 0), np.int64)
    # Each key carries its place in its last bits: to partition numbers is four times as fast as to partition indices.
    places = np.uint64((1 << (num_places - 1).bit_length()) - 1)
    keys = rng.integers(0, 1 << 64, (n, num_places), np.uint64) & ~places | np.arange(num_places, dtype=np.uint64)
    chosen = np.partition(keys, count - 1, axis=1)[:, :count] & places
    return np.sort(chosen, axis=1).astype(np.int64)


def random_prefix(rng: np.random.Generator, lengths: np.ndarray, *, density: float) -> np.ndarray:
    """The number of prefix tokens of each sequence, int64 [n], as T5's random_prefix_noise_mask draws them.

    Uniform on [max(1, round((1 - 2 density)(length - 1))), length - 1]; `density` <= 0.5 is the mean share of suffixes.
    """
    low = np.maximum(np.round((1 - 2 * density) * (lengths - 1)), 1).astype(np.int64)
    return rng.integers(low, np.maximum(lengths - 1, low), endpoint=True)


def starts_of_spans(lengths: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """True at the first token of every noise span; a span never reaches into the next sequence."""
    before = np.zeros_like(mask)
    before[1:] = mask[:-1]
    starts = np.cumsum(lengths) - lengths
    before[starts[lengths > 0]] = False
    return mask & ~before


def next_sentinels(lengths: np.ndarray, mask: np.ndarray, sentinels: np.ndarray) -> Ragged:
    """For every sequence the one sentinel behind those that its noise spans took."""
    num_spans = np.add.reduceat(np.append(starts_of_spans(lengths, mask), False), np.cumsum(lengths) - lengths)
    num_spans = np.where(lengths > 0, num_spans, 0) if len(lengths) else np.zeros(0, np.int64)
    if len(num_spans) and num_spans.max() >= len(sentinels):
        raise ValueError(f"{num_spans.max() + 1} sentinels are needed, but the vocabulary has {len(sentinels)}")
    return Ragged(sentinels[num_spans], np.ones_like(lengths))


def spans_to_sentinels(tokens: Ragged, mask: np.ndarray, sentinels: np.ndarray) -> Ragged:
    """Replaces the k-th noise span of every sequence by the one token sentinels[k].

    tokens 1 2 3 4 5 6 7 8   mask 0 0 1 1 0 0 1 1   ->   1 2 <s0> 5 6 <s1>
    """
    is_first = starts_of_spans(tokens.lengths, mask)
    first = np.flatnonzero(is_first)
    num_spans = np.diff(np.searchsorted(first, np.cumsum(tokens.lengths)), prepend=0)
    span = ragged.index_within(num_spans)
    if len(span) and span.max() >= len(sentinels):
        raise ValueError(f"{span.max() + 1} spans in one sequence, but the vocabulary has {len(sentinels)} sentinels")
    values = tokens.values.copy()
    values[first] = sentinels[span]
    return ragged.keep(Ragged(values, tokens.lengths), ~mask | is_first)
