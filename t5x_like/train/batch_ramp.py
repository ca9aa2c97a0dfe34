"""Batches that grow over a run (GPT-3, arXiv:2005.14165, appendix B; Megatron-LM's --rampup-batch-size).

A step takes several batches of the pipeline as one. Micro-batches stay as large as they were, so memory does not grow;
the pipeline's order and position know nothing of the ramp; and there is one program for each number of batches.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from t5x_like.features import Features


@dataclasses.dataclass(frozen=True)
class BatchRamp:
    """stages   (step, batches): from this step on, so many batches of Pipeline.batch_size rows are one step's

    ((0, 1), (1000, 2), (4000, 8)) makes 1,000 steps of one batch, 3,000 of two, and then steps of eight.
    """

    stages: Sequence[tuple[int, int]] = ((0, 1),)

    def __post_init__(self):
        steps = [step for step, _ in self.stages]
        if not steps or steps[0] != 0 or any(later <= step for step, later in itertools.pairwise(steps)):
            raise ValueError(f"stages {self.stages}: steps must begin with 0 and ascend")
        if any(batches < 1 for _, batches in self.stages):
            raise ValueError(f"stages {self.stages}: a step takes 1 batch or more")

    def batches(self, step: int) -> int:
        """Of the step that `step` others came before."""
        return max(self.stages, key=lambda stage: stage[0] if stage[0] <= step else -1)[1]

    def batches_before(self, step: int) -> int:
        """Of all steps before it."""
        ends = [first for first, _ in self.stages[1:]] + [step]
        lengths = [max(0, min(end, step) - first) for (first, _), end in zip(self.stages, ends, strict=True)]
        return sum(length * batches for length, (_, batches) in zip(lengths, self.stages, strict=True))

    def largest(self, steps: int) -> int:
        """Of a run of so many steps."""
        return max(batches for first, batches in self.stages if first < max(steps, 1))


def linear_ramp(*, last: int, over: int, first: int = 1, increment: int = 1) -> BatchRamp:
    """From `first` to `last` batches a step, each size for as many rows as every other (Megatron-LM's rule).

    last, first, increment   batches of Pipeline.batch_size rows; Megatron's sizes divided by it
    over                     batches in all until `last` is reached; Megatron's ramp-up samples divided by it
    """
    if over < 1:
        raise ValueError(f"linear_ramp over {over} batches: it takes 1 or more")
    if increment < 1 or first < 1 or last <= first or (last - first) % increment:
        raise ValueError(
            f"linear_ramp from first={first} to last={last} by increment={increment}: last must be above first by a "
            "multiple of increment"
        )
    sizes = range(first, last + 1, increment)
    stages, step, taken, shares = [(0, first)], 0, 0, len(sizes) - 1
    for number, (size, following) in enumerate(itertools.pairwise(sizes), start=1):
        missing = number * over - taken * shares  # of the first `number` shares, in batches times `shares`
        more = max(0, -(-missing // (shares * size)))
        step, taken = step + more, taken + more * size
        stages.append((step, following))
    return BatchRamp(tuple(dict(stages).items()))  # the size of a share smaller than a step is passed over


def interleaved(batches: Sequence[Features]) -> Features:
    """Batches of this process's rows as one, [n * B, ...]: row r of batch i is row r * n + i.

    So each of any number of devices holds of the whole what it would hold of every batch; and of n * m micro-batches,
    which take every (n * m)-th row, each is one of the m of a batch.
    """
    if len(batches) == 1:
        return batches[0]
    return jax.tree.map(lambda *rows: np.stack(rows, axis=1).reshape(-1, *rows[0].shape[1:]), *batches)
