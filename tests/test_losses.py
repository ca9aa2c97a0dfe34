import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like import losses


def random_logits(shape=(4, 6, 11)):
    logits = 3 * jax.random.normal(jax.random.key(0), shape)
    targets = jax.random.randint(jax.random.key(1), shape[:-1], 0, shape[-1])
    return logits, targets


def one_hot_cross_entropy(logits, targets, z_loss, label_smoothing):
    """T5X's formula, written over one-hot targets in float64."""
    logits, V = np.asarray(logits, np.float64), logits.shape[-1]
    right, wrong = 1 - label_smoothing, label_smoothing / (V - 1)
    soft = np.where(np.arange(V) == np.asarray(targets)[..., None], right, wrong)
    log_z = np.log(np.exp(logits).sum(-1))
    constant = -(right * np.log(right) + (V - 1) * wrong * np.log(wrong + 1e-20))
    return -(soft * (logits - log_z[..., None])).sum(-1) - constant + z_loss * log_z**2


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_is_t5x_s_one_hot_formula(z_loss, label_smoothing):
    logits, targets = random_logits()
    got = losses.token_cross_entropy(logits, targets, z_loss=z_loss, label_smoothing=label_smoothing)
    np.testing.assert_allclose(
        got, one_hot_cross_entropy(logits, targets, z_loss, label_smoothing), rtol=2e-5, atol=1e-5
    )


def test_gradient_is_softmax_minus_the_smoothed_target():
    logits, targets = random_logits()
    gradient = jax.grad(lambda x: losses.token_cross_entropy(x, targets, label_smoothing=0.2).sum())(logits)
    soft = jnp.where(jnp.arange(11)[None, None] == targets[..., None], 0.8, 0.2 / 10)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - soft, atol=1e-6)


def test_uniform_logits_cost_log_vocab():
    loss_BL = losses.token_cross_entropy(jnp.zeros((2, 3, 7)), jnp.zeros((2, 3), jnp.int32))
    np.testing.assert_allclose(loss_BL, np.log(7), rtol=1e-6)


def test_a_perfect_model_of_smoothed_targets_has_loss_zero():
    logits = jnp.log(jnp.array([[[0.9, 0.05, 0.05]]]))
    loss_BL = losses.token_cross_entropy(logits, jnp.zeros((1, 1), jnp.int32), label_smoothing=0.1)
    np.testing.assert_allclose(loss_BL, 0.0, atol=1e-6)


def test_bfloat16_logits_are_summed_in_float32():
    logits, targets = random_logits((2, 3, 4096))
    low = logits.astype(jnp.bfloat16)
    got = losses.token_cross_entropy(low, targets)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, losses.token_cross_entropy(low.astype(jnp.float32), targets), rtol=1e-6)


def test_places_of_weight_zero_count_for_nothing_even_if_not_a_number():
    term = losses.weighted(jnp.array([[1.0, jnp.nan, 3.0]]), jnp.array([[0.5, 0.0, 1.0]]))
    np.testing.assert_allclose(term, (3.5, 1.5))


@pytest.mark.parametrize("wrong", [{"z_loss": -1e-4}, {"label_smoothing": 1.0}, {"label_smoothing": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        losses.CrossEntropy(**wrong)
