"""Examples to rows of fixed length: which row, and where in it.

Rows are planned for a block of examples at once, so every row of the block is an open bin. Both planners return the row
of each example, int64 [n], rows numbered from 0 without gaps; no example is lost, cut or split.
"""

import numpy as np


def plan_rows(lengths: np.ndarray, capacities: np.ndarray, examples_per_row: int | None = None) -> np.ndarray:
    """Rows for examples of `lengths` [n, sides] in rows of `capacities` [sides] (2 sides: encoder and decoder).

    A row holds `examples_per_row` at most, or as many as fit.
    """
    too_long = (lengths > capacities).any(axis=1)
    if too_long.any():
        worst = lengths[too_long][0]
        raise ValueError(f"an example of length {worst.tolist()} does not fit a row of {capacities.tolist()}: chunk it")
    if examples_per_row == 1:
        return np.arange(len(lengths))
    if len(capacities) == 1:
        return best_fit_decreasing(lengths[:, 0], int(capacities[0]), examples_per_row)
    return smallest_residual(lengths, capacities, examples_per_row)


def best_fit_decreasing(lengths: np.ndarray, capacity: int, most: int | None = None) -> np.ndarray:
    """Longest example first, each into the fullest row that still holds it (arXiv:2404.10830).

    The set of free spaces is one integer whose bit s says that a row with s free tokens exists.
    """
    rows = np.empty(len(lengths), np.int64)
    rows_with_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces, num_rows, num_examples = 0, 0, [0] * len(lengths)
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
        num_examples[row] += 1
        if num_examples[row] == most:
            continue
        rows_with_space[space].append(row)
        spaces |= 1 << space
    return rows


def smallest_residual(lengths: np.ndarray, capacities: np.ndarray, most: int | None = None) -> np.ndarray:
    """Fills one row after another, each time with the example that leaves the least free space in the weighted 2-norm.

    The norm-based greedy of Panigrahy et al., "Heuristics for Vector Bin Packing" (2011), section 4.2; the weight of a
    side is what the unplaced examples need of it. Lengths are whole numbers and their squares come from tables of
    float64, so every machine finds the same rows.
    """
    fills_a_row = (lengths == capacities).all(axis=1)  # leaves nothing, so the greedy would take it first, and alone
    row = int(fills_a_row.sum())
    rows = np.empty(len(lengths), np.int64)
    rows[fills_a_row] = np.arange(row)
    unplaced = np.flatnonzero(~fills_a_row)
    needed = lengths[unplaced].sum(axis=0).tolist()
    tables = [_SquareTable(capacity) for capacity in capacities.tolist()]
    while num_unplaced := len(unplaced):
        inputs, targets = np.ascontiguousarray(lengths[unplaced].T)
        few = num_unplaced - num_unplaced // 8  # until then to pass over placed examples costs less than to drop them
        while num_unplaced and num_unplaced >= few:
            taken = _fill_row(inputs, targets, tables, needed, most or len(lengths))
            rows[unplaced[taken]] = row
            row += 1
            num_unplaced -= len(taken)
        unplaced = unplaced[inputs <= capacities[0]]
    return rows


class _SquareTable:
    """weight * (free - length)^2 at index length, for any number of free places; infinite where length > free."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._squares = np.arange(capacity, -1, -1, np.float64) ** 2
        self._weighted = np.full(2 * (capacity + 1), np.inf)

    def weigh(self, weight: float) -> None:
        np.multiply(self._squares, weight, out=self._weighted[: self.capacity + 1])

    def at(self, free: int) -> np.ndarray:
        return self._weighted[self.capacity - free :]


def _fill_row(
    inputs: np.ndarray, targets: np.ndarray, tables: list[_SquareTable], needed: list[int], most: int
) -> list[int]:
    """Which of the examples, given by the lengths of their sides, go together into one empty row, `most` at most.

    Their `inputs` become longer than a row, so that none fits another, and `needed` loses their lengths.
    """
    for table, tokens in zip(tables, needed, strict=True):
        table.weigh(tokens / table.capacity**3)
    free_inputs, free_targets = (table.capacity for table in tables)
    shortest_inputs, shortest_targets = int(inputs.min()), int(targets.min())
    taken = []
    while free_inputs >= shortest_inputs and free_targets >= shortest_targets and len(taken) < most:
        norms = tables[0].at(free_inputs).take(inputs)
        norms += tables[1].at(free_targets).take(targets)
        best = int(norms.argmin())
        if norms[best] == np.inf:
            break
        taken.append(best)
        free_inputs -= int(inputs[best])
        free_targets -= int(targets[best])
        inputs[best] = tables[0].capacity + 1
    needed[0] -= tables[0].capacity - free_inputs
    needed[1] -= tables[1].capacity - free_targets
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
