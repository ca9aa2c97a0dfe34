import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.models.rotary import Rotary, rotate


def test_rotated_products_depend_on_the_distance_only():
    part = Rotary(8)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def product(query_place, key_place):
        return (
            rotate(q, part(jnp.full((1, 1, 1), query_place))) * rotate(k, part(jnp.full((1, 1, 1), key_place)))
        ).sum()

    np.testing.assert_allclose(product(7, 3), product(107, 103), rtol=1e-4)
    assert abs(product(7, 3) - product(7, 4)) > 1e-3


def test_rotation_keeps_lengths_and_turns_place_zero_by_nothing():
    part, x = Rotary(8), jax.random.normal(jax.random.key(0), (1, 5, 4, 8))
    turned = rotate(x, part(jnp.arange(5)[None, :, None]))
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])


def test_rotary_pairs_a_dimension_with_the_one_half_a_head_away():
    """LLaMA's convention: at place 1 the first pair (0, 4) turns by 1 radian, the second (1, 5) by 10000^(-1/4)."""
    x = jnp.zeros((1, 1, 1, 8)).at[..., 0].set(1.0).at[..., 1].set(1.0)
    turned = rotate(x, Rotary(8)(jnp.ones((1, 1, 1))))[0, 0, 0]
    expected = [np.cos(1), np.cos(0.1), 0, 0, np.sin(1), np.sin(0.1), 0, 0]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_only_a_share_of_the_dims_is_turned():
    part, x = Rotary(8, share=0.5), jax.random.normal(jax.random.key(0), (1, 5, 4, 8))
    turned = rotate(x, part(jnp.arange(5)[None, :, None]))
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    np.testing.assert_allclose(turned[..., :4], rotate(x[..., :4], Rotary(4)(jnp.arange(5)[None, :, None])))


def test_an_odd_number_of_dims_cannot_be_turned():
    with pytest.raises(ValueError, match="3 dims of a head of 3 are turned in pairs"):
        Rotary(3)
