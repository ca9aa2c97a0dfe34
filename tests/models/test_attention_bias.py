import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.models.attention_bias import (
    Alibi,
    RelativeBuckets,
    alibi_slopes,
    relative_buckets,
    spread_along_diagonals,
)
from t5x_like.models.layers import sizes_of

SIZES = sizes_of(d_model=32, num_heads=4, num_kv_heads=None, head_dim=8, d_ff=64, dtype="float32")


def make(bidirectional=False):
    return RelativeBuckets(SIZES, bidirectional=bidirectional, rngs=nnx.Rngs(params=jax.random.key(0)))


def test_buckets_are_the_published_ones():
    """Worked out by hand from the formula in T5's released code: 32 buckets, distances up to 128."""
    distance = np.array([-1000, -128, -127, -64, -32, -16, -9, -8, -7, -1, 0, 1, 7, 8, 9, 16, 32, 64, 127, 128, 1000])
    both_ways = relative_buckets(distance, bidirectional=True, num_buckets=32, max_distance=128)
    backwards = relative_buckets(distance, bidirectional=False, num_buckets=32, max_distance=128)
    right = [17, 23, 24, 24, 26, 28, 30, 31, 31, 31]
    assert both_ways.tolist() == [15, 15, 15, 14, 12, 10, 8, 8, 7, 1, 0, *right]
    assert backwards.tolist() == [31, 31, 31, 26, 21, 16, 9, 8, 7, 1, 0, *[0] * 10]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_farther_keys_never_get_an_earlier_bucket_and_every_bucket_is_used(bidirectional):
    behind = relative_buckets(-np.arange(300), bidirectional=bidirectional, num_buckets=32, max_distance=128)
    assert np.all(np.diff(behind) >= 0)
    assert sorted(set(behind.tolist())) == list(range(16 if bidirectional else 32))


def test_spreading_along_diagonals_is_indexing_by_distance():
    value_NW = jax.random.normal(jax.random.key(0), (3, 9))
    index = np.arange(5)[None, :] - np.arange(5)[:, None] + 4
    np.testing.assert_array_equal(spread_along_diagonals(value_NW, 5), value_NW[:, index])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_bias_of_a_row_equals_bias_at_its_places(bidirectional):
    part = make(bidirectional=bidirectional)
    at = part.of_places(jnp.arange(40)[None, :, None], 40)
    np.testing.assert_allclose(part.of_rows(40), at, rtol=1e-6)


def test_relative_table_starts_uniform_within_the_fan_average_limit():
    table = make().table[...]
    limit = np.sqrt(3 / ((4 + 32) / 2))
    assert table.shape == (4, 32)
    assert 0.9 * limit < np.abs(table).max() <= limit


def test_alibi_slopes_are_the_published_ones():
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-h for h in range(1, 9)])
    np.testing.assert_allclose(alibi_slopes(12)[:8], alibi_slopes(8))
    np.testing.assert_allclose(alibi_slopes(12)[8:], [0.70711, 0.35355, 0.17678, 0.08839], rtol=1e-4)
    np.testing.assert_allclose(alibi_slopes(1), [2.0**-8])
    assert [len(set(alibi_slopes(n))) for n in range(1, 70)] == list(range(1, 70))


def test_alibi_takes_the_slope_off_for_every_place_of_distance():
    bias = Alibi(SIZES, bidirectional=False, rngs=None).of_rows(5)
    assert bias.shape == (1, 4, 5, 5)
    np.testing.assert_allclose(bias[0, 0, 4], [-1.0, -0.75, -0.5, -0.25, 0.0])
    np.testing.assert_allclose(bias[0, 3, 1], np.array([-1, 0, -1, -2, -3]) / 256)


def test_alibi_of_a_row_equals_alibi_at_its_places():
    part = Alibi(SIZES, bidirectional=True, rngs=None)
    places = jnp.array([[7], [2]])[..., None]
    at = part.of_places(places, 9)
    np.testing.assert_array_equal(at[:, :, 0], part.of_rows(9)[0][:, places[:, 0, 0]].swapaxes(0, 1))
