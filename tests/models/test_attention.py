import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like.models.attention import Attention
from t5x_like.models.attention_kernels import Scores, Visible, mask_of, xla
from t5x_like.models.initializers import normal_init
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import sizes_of


def make(num_kv_heads=4, **options):
    sizes = sizes_of(d_model=32, num_heads=4, num_kv_heads=num_kv_heads, head_dim=None, d_ff=64, dtype="float32")
    init = normal_init(num_layers=1, head_dim=8, stddev=0.3)
    return Attention(sizes, init=init, rngs=nnx.Rngs(params=jax.random.key(0)), **options)


def places(length, order=None):
    """Two rows of one segment."""
    ones, place = jnp.ones((2, length), jnp.int32), jnp.tile(jnp.arange(length), (2, 1))
    order = 0 * ones if order is None else jnp.broadcast_to(order, (2, length))
    return Visible(ones, ones, order, order, place, place)


def read(part, x, visible):
    return part(x, part.keys_values(x, None), visible)


def test_each_group_of_queries_reads_its_own_key_head():
    """Grouped heads equal full heads whose keys and values are repeated."""
    grouped, full = make(num_kv_heads=2), make()
    full.query.set_value(grouped.query[...])
    full.out.set_value(grouped.out[...])
    full.key.set_value(jnp.repeat(grouped.key[...], 2, axis=1))
    full.value.set_value(jnp.repeat(grouped.value[...], 2, axis=1))
    x, visible = jax.random.normal(jax.random.key(1), (2, 5, 32)), places(5)
    np.testing.assert_allclose(read(grouped, x, visible), read(full, x, visible), rtol=1e-4, atol=1e-5)


def test_attention_is_a_masked_average_written_out_by_hand():
    q, k, v = np.asarray(jax.random.normal(jax.random.key(0), (3, 2, 5, 1, 4)))
    bias, sink = np.asarray(jax.random.normal(jax.random.key(1), (1, 1, 5, 5))), 0.7
    scores = Scores(softcap=2.0, bias_BNLM=bias, window=3, num_global=1, sinks_N=jnp.array([sink]))
    found = xla(q, KeysValues(k, v), places(5, order=jnp.arange(5)), scores)
    seen = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1]])
    logits = 2.0 * np.tanh(q[0, :, 0] @ k[0, :, 0].T / 2.0) + bias[0, 0]
    powers = np.exp(logits) * seen
    expected = powers / (powers.sum(1, keepdims=True) + np.exp(sink)) @ v[0, :, 0]
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)


def test_a_window_hides_far_keys_on_both_sides_but_not_the_global_ones():
    mask = mask_of(places(6), Scores(window=2, num_global=1))[0].astype(int)
    assert mask.tolist() == [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 0, 1, 1, 1, 0],
        [1, 0, 0, 1, 1, 1],
        [1, 0, 0, 0, 1, 1],
    ]


def test_a_query_that_may_see_nothing_is_finite():
    x, visible = jax.random.normal(jax.random.key(1), (2, 4, 32)), places(4)
    padding = visible._replace(key_segments_BM=0 * visible.key_segments_BM)
    assert np.isfinite(read(make(), x, padding)).all()


def test_t5_s_unscaled_logits_with_a_query_smaller_by_root_h_are_the_scaled_ones():
    scaled, unscaled = make(), make(logit_scale=1.0)
    unscaled.query.set_value(scaled.query[...] / 8**0.5)
    x, visible = jax.random.normal(jax.random.key(1), (2, 5, 32)), places(5)
    np.testing.assert_allclose(read(scaled, x, visible), read(unscaled, x, visible), rtol=1e-4, atol=1e-6)
