import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import sizes_of
from t5x_like.models.positions import LearnedPositions

SIZES = sizes_of(d_model=32, num_heads=4, num_kv_heads=None, head_dim=8, d_ff=64, dtype="float32")


def test_a_place_beyond_the_learned_ones_is_not_a_number():
    rngs = nnx.Rngs(params=jax.random.key(0))
    y = LearnedPositions(SIZES, init=normal_init(num_layers=1, head_dim=8), rngs=rngs, max_length=4)(
        jnp.arange(5)[None, :, None]
    )
    assert np.isfinite(y[:, :4]).all() and np.isnan(y[:, 4:]).all()
