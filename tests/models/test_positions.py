import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.models.initializers import t5_init
from t5x_like.models.layers import sizes_of
from t5x_like.models.positions import (
    LearnedPositions,
    RelativeBuckets,
    Rotary,
    relative_buckets,
    rotate,
    spread_along_diagonals,
)

SIZES = sizes_of(d_model=32, num_heads=4, num_kv_heads=None, head_dim=8, d_ff=64, dtype="float32")


def make(part, *, bidirectional=False, **options):
    init = t5_init(num_layers=2, head_dim=8)
    return part(SIZES, bidirectional=bidirectional, init=init, rngs=nnx.Rngs(params=jax.random.key(0)), **options)


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
    part = make(RelativeBuckets, bidirectional=bidirectional)
    at = part.bias_at(jnp.arange(40)[None, :, None], 40)
    np.testing.assert_allclose(part.bias(40), at, rtol=1e-6)


def test_relative_table_starts_uniform_within_the_fan_average_limit():
    table = make(RelativeBuckets).table[...]
    limit = np.sqrt(3 / ((4 + 32) / 2))
    assert table.shape == (4, 32)
    assert 0.9 * limit < np.abs(table).max() <= limit


def test_rotated_products_depend_on_the_distance_only():
    part = make(Rotary)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def product(query_place, key_place):
        return (
            rotate(q, part.rotation(jnp.full((1, 1, 1), query_place)))
            * rotate(k, part.rotation(jnp.full((1, 1, 1), key_place)))
        ).sum()

    np.testing.assert_allclose(product(7, 3), product(107, 103), rtol=1e-4)
    assert abs(product(7, 3) - product(7, 4)) > 1e-3


def test_rotation_keeps_lengths_and_turns_place_zero_by_nothing():
    part, x = make(Rotary), jax.random.normal(jax.random.key(0), (1, 5, 4, 8))
    turned = rotate(x, part.rotation(jnp.arange(5)[None, :, None]))
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])


def test_rotary_pairs_a_dimension_with_the_one_half_a_head_away():
    """LLaMA's convention: at place 1 the first pair (0, 4) turns by 1 radian, the second (1, 5) by 10000^(-1/4)."""
    x = jnp.zeros((1, 1, 1, 8)).at[..., 0].set(1.0).at[..., 1].set(1.0)
    turned = rotate(x, make(Rotary).rotation(jnp.ones((1, 1, 1))))[0, 0, 0]
    expected = [np.cos(1), np.cos(0.1), 0, 0, np.sin(1), np.sin(0.1), 0, 0]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_odd_heads_cannot_be_rotary():
    odd = sizes_of(d_model=6, num_heads=2, num_kv_heads=None, head_dim=3, d_ff=8, dtype="float32")
    with pytest.raises(ValueError, match="head_dim 3 is odd"):
        Rotary(odd, bidirectional=False, init=t5_init(num_layers=1, head_dim=3), rngs=nnx.Rngs(params=0))


def test_a_place_beyond_the_learned_ones_is_not_a_number():
    part = make(LearnedPositions, max_length=4)
    y = part.embed(jnp.zeros((1, 5, 32)), jnp.arange(5)[None, :, None])
    assert np.isfinite(y[:, :4]).all() and np.isnan(y[:, 4:]).all()
