import numpy as np
import pytest

from t5x_like.data import packing


def fill(lengths, capacities):
    rows = packing.plan_rows(lengths, capacities)
    used = np.stack([np.bincount(rows, lengths[:, side]) for side in range(lengths.shape[1])], axis=1)
    assert (used <= capacities).all()
    assert sorted(set(rows.tolist())) == list(range(rows.max() + 1))
    return lengths.sum(axis=0) / ((rows.max() + 1) * capacities)


def test_the_figure_of_best_fit_packing():
    """arXiv:2404.10830, figure 2: documents of 14, 7, 5, 2, 3 tokens, cut at 8, in rows of 8."""
    lengths = np.array([8, 6, 7, 5, 2, 3])
    rows = packing.best_fit_decreasing(lengths, 8)
    assert sorted(sorted(lengths[rows == row].tolist()) for row in set(rows)) == [[2, 6], [3, 5], [7], [8]]


def test_one_sequence_fills_97_percent():
    lengths = np.random.default_rng(0).integers(5, 101, (600, 1))
    assert fill(lengths, np.array([256]))[0] >= 0.97


def test_pairs_fill_93_percent_of_both_sides():
    """Demand of 52.5 / 256 and 27.5 / 128 a pair leaves the encoder at most 0.955; SeqIO reaches 0.749 and 0.779.

    24,000 pairs: the standard error of both means is under 0.003."""
    rng = np.random.default_rng(0)
    fills = [
        fill(np.stack([rng.integers(5, 101, 600), rng.integers(5, 51, 600)], axis=1), np.array([256, 128]))
        for _ in range(40)
    ]
    assert (np.mean(fills, axis=0) >= 0.93).all()


@pytest.mark.parametrize("capacities", [[64], [64, 40]])
def test_any_lengths_fit(capacities):
    rng = np.random.default_rng(3)
    for n in (1, 2, 50):
        lengths = np.stack([rng.integers(0, capacity + 1, n) for capacity in capacities], axis=1)
        fill(lengths, np.array(capacities))


def test_too_long_is_an_error():
    with pytest.raises(ValueError, match=r"length \[9\] does not fit a row of \[8\]"):
        packing.plan_rows(np.array([[3], [9]]), np.array([8]))


def test_segments_stand_one_behind_another():
    offsets, segments = packing.offsets_in_rows(np.array([1, 0, 1, 1]), np.array([3, 4, 2, 5]))
    assert offsets.tolist() == [0, 0, 3, 5]
    assert segments.tolist() == [1, 1, 2, 3]


@pytest.mark.parametrize("capacities", [[20], [20, 30]])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_row_holds_no_more_examples_than_it_may(capacities, most):
    lengths = np.random.default_rng(0).integers(1, 9, (100, len(capacities)))
    rows = packing.plan_rows(lengths, np.array(capacities), most)
    counts = np.bincount(rows)
    assert counts.max() == most and counts.min() >= 1
    assert all(np.bincount(rows, lengths[:, side]).max() <= room for side, room in enumerate(capacities))
