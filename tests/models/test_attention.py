import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like.models.attention import Attention, attend
from t5x_like.models.initializers import normal_init
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import sizes_of


def make(num_kv_heads=4, **options):
    sizes = sizes_of(d_model=32, num_heads=4, num_kv_heads=num_kv_heads, head_dim=None, d_ff=64, dtype="float32")
    init = normal_init(num_layers=1, head_dim=8, stddev=0.3)
    return Attention(sizes, init=init, rngs=nnx.Rngs(params=jax.random.key(0)), **options)


def read(part, x, mask, **options):
    return part(x, part.keys_values(x, None), mask_BLM=mask, **options)


def test_each_group_of_queries_reads_its_own_key_head():
    """Grouped heads equal full heads whose keys and values are repeated."""
    grouped, full = make(num_kv_heads=2), make()
    full.query.set_value(grouped.query[...])
    full.out.set_value(grouped.out[...])
    full.key.set_value(jnp.repeat(grouped.key[...], 2, axis=1))
    full.value.set_value(jnp.repeat(grouped.value[...], 2, axis=1))
    x, mask = jax.random.normal(jax.random.key(1), (2, 5, 32)), jnp.ones((2, 5, 5), bool)
    np.testing.assert_allclose(read(grouped, x, mask), read(full, x, mask), rtol=1e-4, atol=1e-5)


def test_attention_is_a_masked_average_written_out_by_hand():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 3, 1, 4))
    bias = jax.random.normal(jax.random.key(1), (1, 1, 3, 3))
    mask = np.tril(np.ones((1, 3, 3), bool))
    found = attend(q, KeysValues(k, v), mask_BLM=mask, bias_BNLM=bias, dropout_key=None, dropout_rate=0.0)
    scores = np.exp(np.asarray(q)[0, :, 0] @ np.asarray(k)[0, :, 0].T + np.asarray(bias)[0, 0]) * mask[0]
    expected = scores / scores.sum(1, keepdims=True) @ np.asarray(v)[0, :, 0]
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)


def test_a_query_that_may_see_nothing_is_finite():
    x = jax.random.normal(jax.random.key(1), (1, 4, 32))
    assert np.isfinite(read(make(), x, jnp.zeros((1, 4, 4), bool))).all()


def test_t5_s_unscaled_logits_with_a_query_smaller_by_root_h_are_the_scaled_ones():
    scaled, unscaled = make(), make(head_dim_power=0.0)
    unscaled.query.set_value(scaled.query[...] / 8**0.5)
    x, mask = jax.random.normal(jax.random.key(1), (2, 5, 32)), jnp.ones((2, 5, 5), bool)
    np.testing.assert_allclose(read(scaled, x, mask), read(unscaled, x, mask), rtol=1e-4, atol=1e-6)
