"""What becomes of noise tokens, besides sentinels (`masking.spans_to_sentinels`). Pure functions of tokens and a mask.

tokens          1 2 3 4 5 6     mask  0 1 1 0 1 0
each_by(9)      1 9 9 4 9 6
dropped         1 4 6
by_own(rng)     1 6 2 4 1 6     any token of the same sequence
"""

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.drawing import uniform
from t5x_like.data.ragged import Ragged


def each_by(tokens: Ragged, mask: np.ndarray, token: int) -> Ragged:
    """Every noise token becomes `token`."""
    return Ragged(np.where(mask, np.int32(token), tokens.values), tokens.lengths)


def dropped(tokens: Ragged, mask: np.ndarray) -> Ragged:
    """Noise tokens vanish."""
    return ragged.keep(tokens, ~mask)


def by_random(rng: np.random.Generator, tokens: Ragged, mask: np.ndarray, allowed: np.ndarray) -> Ragged:
    """Every noise token becomes one of the ids `allowed`, uniformly; it may stay what it was."""
    drawn = allowed[rng.integers(len(allowed), size=len(tokens.values))]
    return Ragged(np.where(mask, drawn, tokens.values).astype(np.int32), tokens.lengths)


def bert_style(
    rng: np.random.Generator,
    tokens: Ragged,
    mask: np.ndarray,
    *,
    masked: float,
    random: float,
    mask_token: int,
    allowed: np.ndarray,
    groups: np.ndarray | None = None,
) -> Ragged:
    """A share `masked` of the noise becomes `mask_token`, a share `random` one of the ids `allowed`, the rest stays.

    The draw is by token, or one for all tokens of a group: `groups` [tokens] are numbers from 0, or -1 outside.
    """
    noise = np.flatnonzero(mask)
    owners = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    if groups is None:
        draw = uniform(rng, owners[noise])
    else:
        of_groups = np.zeros(groups.max(initial=-1) + 1, np.int64)
        of_groups[groups[groups >= 0]] = owners[groups >= 0]
        draw = uniform(rng, of_groups)[groups[noise]]
    values = tokens.values.copy()
    values[noise[draw < masked]] = mask_token
    places = noise[(draw >= masked) & (draw < masked + random)]
    values[places] = allowed[(uniform(rng, owners[places]) * len(allowed)).astype(np.int64)]
    return Ragged(values, tokens.lengths)


def by_own(rng: np.random.Generator, tokens: Ragged, mask: np.ndarray) -> Ragged:
    """Every noise token becomes a token of its own sequence, uniformly (T5's noise_token_to_gathered_token)."""
    lengths = np.repeat(tokens.lengths, tokens.lengths)
    chosen = np.minimum((rng.random(len(lengths)) * lengths).astype(np.int64), lengths - 1)
    own = tokens.values[np.repeat(tokens.starts, tokens.lengths) + chosen]
    return Ragged(np.where(mask, own, tokens.values), tokens.lengths)


def shuffled(rng: np.random.Generator, tokens: Ragged) -> Ragged:
    """Every sequence in a uniformly random order."""
    return Ragged(tokens.values[random_order(rng, tokens.lengths)], tokens.lengths)


def random_order(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
    """Indices that put the tokens of every sequence into a uniformly random order of their own, int64 [sum]."""
    return np.argsort(np.repeat(np.arange(len(lengths)), lengths) + rng.random(lengths.sum()))


def random_ranks(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
    """0 ... length - 1 in a random order within every sequence: the tokens of rank < k are k distinct random ones."""
    ranks = np.empty(lengths.sum(), np.int64)
    ranks[random_order(rng, lengths)] = ragged.index_within(lengths)
    return ranks


def insert(rng: np.random.Generator, tokens: Ragged, counts: np.ndarray, token: int) -> Ragged:
    """`counts` [n] copies of `token` at uniformly random places of each sequence."""
    lengths = tokens.lengths + counts
    is_new = random_ranks(rng, lengths) < np.repeat(counts, lengths)
    values = np.full(lengths.sum(), token, np.int32)
    values[~is_new] = tokens.values
    return Ragged(values, lengths)
