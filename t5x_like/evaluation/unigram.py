"""The yardstick that every trained model must beat: predict each target by how often it was a target in training."""

from collections.abc import Iterable

import numpy as np

from t5x_like.features import Features


def count_targets(batches: Iterable[Features], vocab_size: int) -> np.ndarray:
    """How often each id is predicted, int64 [vocab_size]."""
    counts = np.zeros(vocab_size, np.int64)
    for batch in batches:
        counts += np.bincount(batch.targets[batch.loss_weights > 0], minlength=vocab_size)
    return counts


def unigram_loss(train_counts: np.ndarray, held_out_counts: np.ndarray) -> float:
    """Mean -log p over the held-out targets, in nats, with one added to every count (Laplace)."""
    log_p = np.log(train_counts + 1) - np.log(train_counts.sum() + len(train_counts))
    return float(-(held_out_counts * log_p).sum() / max(held_out_counts.sum(), 1))
