import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.models import initializers, layers
from t5x_like.models.heads import ScaledTiedHead, TiedHead

SIZES = layers.sizes_of(d_model=32, num_heads=4, num_kv_heads=None, head_dim=None, d_ff=64, dtype="float32")


def test_rms_norm_has_unit_mean_square_and_layer_norm_also_zero_mean():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (2, 3, 32))
    y, z = layers.RMSNorm(32)(x), layers.LayerNorm(32)(x)
    np.testing.assert_allclose((y**2).mean(-1), 1, rtol=1e-4)
    np.testing.assert_allclose((z**2).mean(-1), 1, rtol=1e-4)
    np.testing.assert_allclose(z.mean(-1), 0, atol=1e-5)


def test_norms_reduce_in_float32_and_answer_in_the_type_of_their_input():
    x = (300 + jax.random.normal(jax.random.key(0), (1, 1, 32))).astype(jnp.bfloat16)
    y = layers.LayerNorm(32)(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), layers.LayerNorm(32)(x.astype(jnp.float32)), rtol=1e-2)


@pytest.mark.parametrize("num_contracted", [1, 2])
def test_projection_is_the_contraction_of_the_last_dims(num_contracted):
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5)[: 2 + num_contracted])
    kernel = jax.random.normal(jax.random.key(1), (*x.shape[2:], 6, 7))
    expected = jnp.tensordot(x, kernel, num_contracted)
    np.testing.assert_allclose(
        layers.project(x, kernel, dtype="float32", num_contracted=num_contracted), expected, rtol=1e-5
    )


@pytest.mark.parametrize("approximate, name", [(False, "gelu"), (True, "gelu_tanh")])
def test_gelu_is_jax_s(approximate, name):
    x = jnp.linspace(-6, 6, 101)
    np.testing.assert_allclose(layers.ACTIVATIONS[name](x), jax.nn.gelu(x, approximate=approximate), atol=1e-6)


def test_an_unknown_activation_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="nearest is 'gelu_tanh'"):
        layers.activation_named("gelu_tan")


def test_dropout_keeps_the_mean_and_shares_its_noise_along_the_length():
    x = jnp.ones((64, 3, 512))
    y = layers.dropout(x, jax.random.key(0), rate=0.25)
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.01)  # 32,768 draws: standard error 0.003
    assert set(np.unique(y).tolist()) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(y[:, :1] * jnp.ones((1, 3, 1)), y)


def test_dropout_without_key_or_rate_is_nothing():
    x = jnp.ones((2, 3, 4))
    assert layers.dropout(x, None, rate=0.5) is x
    assert layers.dropout(x, jax.random.key(0), rate=0.0) is x


def test_a_token_outside_the_vocabulary_is_not_a_number():
    init = initializers.normal_init(num_layers=1, head_dim=8)
    embedding = layers.Embedding(SIZES, vocab_size=10, init=init, rngs=nnx.Rngs(params=jax.random.key(0)))
    x = embedding(jnp.array([[9, 10]]))
    assert np.isfinite(x[0, 0]).all() and np.isnan(x[0, 1]).all()


def test_a_scaled_tied_head_divides_by_the_root_of_the_width():
    make = {"vocab_size": 10, "init": None, "rngs": None}
    x, table = jax.random.normal(jax.random.key(0), (2, 3, 32)), jax.random.normal(jax.random.key(1), (10, 32))
    np.testing.assert_allclose(
        ScaledTiedHead(SIZES, **make)(x, table) * 32**0.5, TiedHead(SIZES, **make)(x, table), rtol=1e-5
    )


@pytest.mark.parametrize(
    "recipe, field, expected",
    [
        (initializers.normal_init, "mlp_out", 0.02),
        (initializers.gpt2_init, "mlp_in", 0.02),
        (initializers.gpt2_init, "mlp_out", 0.02 / 8**0.5),
        (initializers.t5_init, "embedding", 1.0),
        (initializers.t5_init, "query", 1 / 16**0.5 / 64**0.5),
        (initializers.t5_init, "key_value", 1 / 64**0.5),
        (initializers.t5_init, "mlp_in", 1 / 64**0.5),
        (initializers.t5_init, "logits", 1 / 64**0.5),
    ],
)
def test_initial_values_have_the_published_standard_deviation(recipe, field, expected):
    init = getattr(recipe(num_layers=4, head_dim=16), field)
    values = init(jax.random.key(0), (400, 500), 64)
    np.testing.assert_allclose(values.std(), expected, rtol=0.01)
    np.testing.assert_allclose(values.mean(), 0.0, atol=0.01 * expected)


def test_t5_mlp_kernels_are_cut_at_two_standard_deviations():
    values = initializers.t5_init(num_layers=4, head_dim=16).mlp_in(jax.random.key(0), (400, 500), 64)
    assert np.abs(values).max() <= 2 / 64**0.5 / initializers.TRUNCATED_STDDEV


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"d_model": 30}, "d_model 30 is not a multiple of num_heads 4"),
        ({"dtype": "int32"}, "'int32' is not a floating type"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    right = {"d_model": 32, "num_heads": 4, "num_kv_heads": None, "head_dim": None, "d_ff": 64, "dtype": "float32"}
    with pytest.raises(ValueError, match=message):
        layers.sizes_of(**right | wrong)


def test_a_gated_mlp_multiplies_its_two_halves():
    init = initializers.normal_init(num_layers=1, head_dim=8)
    make = functools.partial(layers.GatedMlp, SIZES, init=init, rngs=nnx.Rngs(params=jax.random.key(0)))
    mlp, x = make(activation="relu"), jax.random.normal(jax.random.key(1), (2, 3, 32))
    hidden = jnp.maximum(x @ mlp.gate[...], 0) * (x @ mlp.up[...])
    np.testing.assert_allclose(mlp(x, None)[0], hidden @ mlp.down[...], rtol=1e-4, atol=1e-7)
