"""BART's noise (arXiv:1910.13461, section 2.2, and fairseq's denoising_dataset): pure functions of (rng, tokens).

Where paper and code differ the code is followed: spans may collide, so that less is hidden than was asked for (0.269 of
400 tokens at 0.3 and Poisson(3), not 0.3), and the last span is cut so that the lengths add up to the budget.
"""

import numpy as np

from t5x_like.data import masking, ragged, replacing
from t5x_like.data.ragged import Ragged


def chosen(rng: np.random.Generator, lengths: np.ndarray, *, ratio: float) -> np.ndarray:
    """ceil(ratio * length) distinct random tokens of each sequence, as a flat mask."""
    counts = np.ceil(lengths * ratio).astype(np.int64)
    return replacing.random_ranks(rng, lengths) < np.repeat(counts, lengths)


def infill(rng: np.random.Generator, tokens: Ragged, *, ratio: float, mean_span: float, mask_token: int) -> Ragged:
    """Hides spans of Poisson(mean_span) tokens, each behind one `mask_token`; a span of 0 tokens inserts one.

    tokens 1 2 3 4 5 6   spans of 2 at 2 and of 0   ->   1 <m> 4 5 <m> 6
    """
    spans = span_lengths(rng, np.ceil(tokens.lengths * ratio).astype(np.int64), mean_span)
    some = spans > 0
    counts = some.sum(axis=1)
    ranks = replacing.random_ranks(rng, tokens.lengths)
    is_start = ranks < np.repeat(counts, tokens.lengths)
    rows = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    compact = np.take_along_axis(spans, np.argsort(~some, axis=1, kind="stable"), axis=1)
    starts = np.flatnonzero(is_start)
    ends = np.minimum(starts + compact[rows[starts], ranks[starts]], (tokens.starts + tokens.lengths)[rows[starts]])
    change = np.zeros(len(rows) + 1, np.int64)
    np.add.at(change, starts + 1, 1)
    np.add.at(change, np.maximum(ends, starts + 1), -1)
    is_hidden = np.cumsum(change[:-1]) > 0  # inside a span, behind its first token
    shown = ragged.keep(replacing.each_by(tokens, is_start, mask_token), ~is_hidden)
    return replacing.insert(rng, shown, inserts(spans), mask_token)


def span_lengths(rng: np.random.Generator, budgets: np.ndarray, mean_span: float) -> np.ndarray:
    """Lengths of spans that add up to `budgets` [n], int64 [n, most spans]; -1 where a row has no more of them.

    Drawn one after the other until the budget is reached; the span that reaches it is cut.
    """
    width = max(int(budgets.max(initial=0)), 1)
    lengths = rng.poisson(mean_span, (len(budgets), width))
    while (short := lengths.sum(axis=1) < budgets).any():
        more = np.where(short[:, None], rng.poisson(mean_span, lengths.shape), 0)
        lengths = np.concatenate([lengths, more], axis=1)
    before = np.cumsum(lengths, axis=1) - lengths
    left = budgets[:, None] - before
    return np.where(left > 0, np.minimum(lengths, left), -1)


def inserts(spans: np.ndarray) -> np.ndarray:
    return (spans == 0).sum(axis=1)


def permute_sentences(rng: np.random.Generator, tokens: Ragged, sentence_ends: np.ndarray, *, share: float) -> Ragged:
    """Puts ceil(share * n) of the n sentences of each sequence into each other's places, at random.

    A sentence ends with a token of `sentence_ends` that follows another kind of token, or with the sequence; as in the
    released code, what follows the last full stop stays in its place if it is a single token.
    """
    stops = np.isin(tokens.values, sentence_ends)
    stops[(tokens.starts + tokens.lengths - 1)[tokens.lengths > 0]] = True
    ends = masking.starts_of_spans(tokens.lengths, stops)
    rows = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    num_sentences = np.bincount(rows[ends], minlength=len(tokens.lengths))
    is_last = np.zeros(len(rows), bool)
    is_last[(tokens.starts + tokens.lengths - 1)[tokens.lengths > 0]] = True
    borders = np.flatnonzero(ends | is_last)
    sentences = Ragged(tokens.values, np.diff(borders, prepend=-1))
    movable = np.flatnonzero(ends[borders])
    counts = np.ceil(num_sentences * share).astype(np.int64)
    moves = movable[replacing.random_ranks(rng, num_sentences) < np.repeat(counts, num_sentences)]
    order = np.arange(len(sentences.lengths))
    order[moves] = moves[replacing.random_order(rng, counts)]
    return Ragged(ragged.take(sentences, order).values, tokens.lengths)


def rotate(rng: np.random.Generator, tokens: Ragged, *, share: float) -> Ragged:
    """With probability `share` a sequence begins at a uniformly random token and goes on from its start."""
    offsets = rng.integers(0, tokens.lengths, endpoint=True) * (rng.random(len(tokens.lengths)) < share)
    lengths = np.repeat(np.maximum(tokens.lengths, 1), tokens.lengths)
    within = (ragged.index_within(tokens.lengths) + np.repeat(offsets, tokens.lengths)) % lengths
    return Ragged(tokens.values[np.repeat(tokens.starts, tokens.lengths) + within], tokens.lengths)
