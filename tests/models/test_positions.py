import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import sizes_of
from t5x_like.models.positions import BlockPositions, LearnedPositions, SinusoidalPositions

INIT = normal_init(num_layers=1, head_dim=8)
SIZES = sizes_of(d_model=32, num_heads=4, num_kv_heads=None, head_dim=8, d_ff=64, dtype="float32")


def test_a_place_beyond_the_learned_ones_is_not_a_number():
    rngs = nnx.Rngs(params=jax.random.key(0))
    y = LearnedPositions(SIZES, init=normal_init(num_layers=1, head_dim=8), rngs=rngs, max_length=4)(
        jnp.arange(5)[None, :, None]
    )
    assert np.isfinite(y[:, :4]).all() and np.isnan(y[:, 4:]).all()


def test_sinusoids_are_tensor2tensors():
    """Half sines, half cosines, and the wavelengths of both halves run from 1 to 10,000 itself."""
    waves = np.asarray(SinusoidalPositions(SIZES, init=INIT, rngs=None)(jnp.array([[[0], [3], [500]]])))
    for place, wave in zip([0, 3, 500], waves[0], strict=True):
        np.testing.assert_allclose(
            wave[[0, 15, 16, 31]], [np.sin(place), np.sin(place / 1e4), np.cos(place), np.cos(place / 1e4)], atol=1e-5
        )
    exponents = np.arange(16) / 15
    np.testing.assert_allclose(waves[0, 1, :16], np.sin(3 / 10_000**exponents), rtol=1e-5)


def test_an_odd_last_dim_of_sinusoids_is_zero_and_too_few_dims_are_refused():
    odd = sizes_of(d_model=7, num_heads=1, num_kv_heads=None, head_dim=4, d_ff=8, dtype="float32")
    assert SinusoidalPositions(odd, init=INIT, rngs=None)(jnp.ones((1, 1, 1))).ravel()[-1] == 0
    with pytest.raises(ValueError, match="d_model 2 has no room for two waves"):
        few = sizes_of(d_model=2, num_heads=1, num_kv_heads=None, head_dim=4, d_ff=8, dtype="float32")
        SinusoidalPositions(few, init=INIT, rngs=None)


def test_block_positions_add_the_place_in_the_text_and_the_place_in_the_span():
    part = BlockPositions(SIZES, init=INIT, rngs=nnx.Rngs(params=jax.random.key(0)), max_length=6, max_block_length=3)
    found = part(jnp.array([[[5, 0], [2, 1], [2, 2], [6, 0], [0, 3]]]))[0]
    table, block = part.table[...], part.block_table[...]
    np.testing.assert_allclose(found[:3], [table[5] + block[0], table[2] + block[1], table[2] + block[2]])
    assert np.isnan(found[3:]).all()


def test_block_positions_refuse_a_batch_with_one_position_a_token():
    part = BlockPositions(SIZES, init=INIT, rngs=nnx.Rngs(params=jax.random.key(0)), max_length=6, max_block_length=3)
    with pytest.raises(ValueError, match=r"1 position\(s\) a token: BlockPositions reads 2"):
        part(jnp.zeros((1, 4, 1), jnp.int32))
