"""Examples to rows of fixed length: which row, and where in it.

Rows are planned for a block of examples at once, so every row of the block is an open bin. Both planners return the row
of each example, int64 [n], rows numbered from 0 without gaps; no example is lost, cut or split.
"""

import numpy as np


def plan_rows(lengths: np.ndarray, capacities: np.ndarray) -> np.ndarray:
    """Rows for examples of `lengths` [n, sides] in rows of `capacities` [sides] (2 sides: encoder and decoder)."""
    too_long = (lengths > capacities).any(axis=1)
    if too_long.any():
        worst = lengths[too_long][0]
        raise ValueError(f"an example of length {worst.tolist()} does not fit a row of {capacities.tolist()}: chunk it")
    if len(capacities) == 1:
        return best_fit_decreasing(lengths[:, 0], int(capacities[0]))
    return smallest_residual(lengths, capacities)


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Longest example first, each into the fullest row that still holds it (arXiv:2404.10830).

    The set of free spaces is one integer whose bit s says that a row with s free tokens exists.
    """
    rows = np.empty(len(lengths), np.int64)
    rows_with_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces, num_rows = 0, 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        candidates = spaces >> length
        if candidates:
            space = length + (candidates & -candidates).bit_length() - 1
            row = rows_with_space[space].pop()
            if not rows_with_space[space]:
                spaces ^= 1 << space
        else:
            space, row = capacity, num_rows
            num_rows += 1
        rows[i] = row
        space -= length
        rows_with_space[space].append(row)
        spaces |= 1 << space
    return rows


def smallest_residual(lengths: np.ndarray, capacities: np.ndarray) -> np.ndarray:
    """Fills one row after another, each time with the example that leaves the least free space in the weighted 2-norm.

    The norm-based greedy of Panigrahy et al., "Heuristics for Vector Bin Packing" (2011), section 4.2; the weight of a
    side is what the remaining examples need of it. One example costs about ten operations on short arrays, so the two
    sides are written out; lengths are whole numbers in float64, so every machine finds the same rows.
    """
    fills_a_row = (lengths == capacities).all(axis=1)  # leaves nothing, so the greedy would take it first, and alone
    num_full = int(fills_a_row.sum())
    rows = np.empty(len(lengths), np.int64)
    rows[fills_a_row] = np.arange(num_full)
    unplaced = np.flatnonzero(~fills_a_row)
    inputs, targets = np.ascontiguousarray(lengths[unplaced].T, np.float64)
    capacity = capacities.astype(np.float64).tolist()
    for row in range(num_full, len(lengths)):
        if not len(unplaced):
            break
        taken = _fill_row(inputs, targets, capacity)
        rows[unplaced[taken]] = row
        left = np.ones(len(unplaced), bool)
        left[taken] = False
        unplaced, inputs, targets = unplaced[left], inputs[left], targets[left]
    return rows


def _fill_row(inputs: np.ndarray, targets: np.ndarray, capacity: list[float]) -> list[int]:
    """Which of the examples, given by the lengths of their sides, go together into one empty row."""
    free_inputs, free_targets = capacity
    weight_inputs = float(inputs.sum()) / free_inputs**3
    weight_targets = float(targets.sum()) / free_targets**3
    shortest_inputs, shortest_targets = float(inputs.min()), float(targets.min())
    taken = []
    while len(taken) < len(inputs) and free_inputs >= shortest_inputs and free_targets >= shortest_targets:
        left_inputs, left_targets = free_inputs - inputs, free_targets - targets
        too_long = np.minimum(left_inputs, left_targets) < 0
        left_inputs *= left_inputs
        left_targets *= left_targets
        left_inputs *= weight_inputs
        left_targets *= weight_targets
        left_inputs += left_targets
        left_inputs[too_long] = np.inf
        left_inputs[taken] = np.inf
        best = int(left_inputs.argmin())
        if left_inputs[best] == np.inf:
            break
        taken.append(best)
        free_inputs -= float(inputs[best])
        free_targets -= float(targets[best])
    return taken


def offsets_in_rows(rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(offset of each example in its row, its segment number from 1), both int64 [n], examples in their given order."""
    order = np.argsort(rows, kind="stable")
    sorted_rows, sorted_lengths = rows[order], lengths[order]
    is_first = np.concatenate([[True], sorted_rows[1:] != sorted_rows[:-1]])[: len(rows)]
    group = np.cumsum(is_first) - 1
    before = np.cumsum(sorted_lengths) - sorted_lengths
    offsets, segments = np.empty_like(rows), np.empty_like(rows)
    offsets[order] = before - before[is_first][group]
    segments[order] = np.arange(len(rows)) - np.flatnonzero(is_first)[group] + 1
    return offsets, segments
