"""Examples in rows, and rows as the arrays of a batch."""

import numpy as np
import pytest

from t5x_like.data import examples, packing
from t5x_like.data.examples import Side
from t5x_like.data.rows import lay_out, to_features


def side(lengths, *, predicts=True, first=10):
    """Each token once."""
    n = sum(lengths)
    tokens, weights = np.arange(first, first + n, dtype=np.int32), np.linspace(0, 1, n, dtype=np.float32)
    order = -tokens
    return Side(tokens, tokens + 1 if predicts else None, weights if predicts else None, order, np.array(lengths))


def batch(sides, rows, num_rows, lengths):
    return to_features(*lay_out(sides, np.array(rows), num_rows, lengths))


def test_examples_share_rows_in_their_order_and_places_without_a_token_are_zero():
    found = batch([side([2, 3, 1])], [1, 0, 1], 2, [4])
    assert found.tokens.tolist() == [[12, 13, 14, 0], [10, 11, 15, 0]]
    assert found.targets.tolist() == [[13, 14, 15, 0], [11, 12, 16, 0]]
    assert found.segment_ids.tolist() == [[1, 1, 1, 0], [1, 1, 2, 0]]
    assert found.positions[..., 0].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    assert found.attn_order.tolist() == [[-12, -13, -14, 0], [-10, -11, -15, 0]]
    np.testing.assert_allclose(found.loss_weights, [[0.4, 0.6, 0.8, 0], [0, 0.2, 1, 0]], atol=1e-6)
    assert found.encoder is None and found.type_ids is None and found.aux is None


@pytest.mark.parametrize("lengths", [[4, 4, 4, 4], [4, 4, 2, 4], [1, 4, 4, 4], [4, 4, 4, 0], [4, 1, 2, 1], [1, 1]])
def test_whole_rows_are_what_their_tokens_one_by_one_would_be(lengths):
    """Rows that are filled are copied whole where most are; the second side is never filled."""
    rng = np.random.default_rng(0)
    sides = [side(lengths, predicts=False), side(lengths, first=50)]
    rows = packing.plan_rows(np.stack([s.lengths for s in sides], axis=1), np.array([4, 5]))
    rows = rng.permutation(rows.max() + 1)[rows]
    found = batch(sides, rows, int(rows.max()) + 1, [4, 5])
    for given, arrays in zip(sides, (found.encoder, found), strict=True):
        for example, row in enumerate(rows):
            segment = np.flatnonzero(np.flatnonzero(rows == row) == example)[0] + 1
            here = arrays.segment_ids[row] == segment
            assert arrays.tokens[row][here].tolist() == given.cut(example, example + 1).tokens.tolist()
            assert arrays.positions[row, here, 0].tolist() == list(range(lengths[example]))
        assert (arrays.tokens > 0).sum() == sum(lengths)


def test_further_fields_come_along():
    given = side([2, 1])
    given = given._replace(
        positions=np.array([[7, 0], [8, 1], [9, 2]], np.int32),
        type_ids=np.array([0, 1, 1], np.int32),
        aux={"label": np.array([3, 0, 5], np.int32), "weight": np.array([0.5, 0, 1], np.float32)},
    )
    found = batch([given], [0, 0], 1, [4])
    assert found.positions.tolist() == [[[7, 0], [8, 1], [9, 2], [0, 0]]]
    assert found.type_ids.tolist() == [[0, 1, 1, 0]]
    assert found.aux["label"].tolist() == [[3, 0, 5, 0]] and found.aux["label"].dtype == np.int32
    assert found.aux["weight"].tolist() == [[0.5, 0, 1, 0]] and found.aux["weight"].dtype == np.float32


def test_sides_that_lack_what_others_have_get_zeros_and_their_own_places():
    """So tasks of different objectives can be mixed in one batch."""
    plain, rich = side([2]), side([1, 1])
    rich = rich._replace(
        positions=np.array([[7, 3], [8, 4]], np.int32),
        type_ids=np.array([1, 2], np.int32),
        aux={"weight": np.array([0.5, 1], np.float32)},
    )
    joined = examples.concatenate([plain, rich])
    assert joined.positions.tolist() == [[0, 0], [1, 0], [7, 3], [8, 4]]
    assert joined.type_ids.tolist() == [0, 0, 1, 2]
    assert joined.aux["weight"].tolist() == [0, 0, 0.5, 1] and joined.aux["weight"].dtype == np.float32
    assert joined.lengths.tolist() == [2, 1, 1] and joined.tokens.tolist() == [10, 11, 10, 11]


def test_a_cut_holds_the_examples_that_it_names():
    given = side([2, 0, 3])._replace(aux={"label": np.arange(5, dtype=np.int32)})
    part = given.cut(1, 3)
    assert part.lengths.tolist() == [0, 3] and part.tokens.tolist() == [12, 13, 14]
    assert part.aux["label"].tolist() == [2, 3, 4] and part.positions is None
