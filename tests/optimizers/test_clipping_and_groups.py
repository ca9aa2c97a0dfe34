import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.param_groups import AllExcept

PARAMS = {"layers/mlp/wi": jnp.ones((2, 4, 4)), "layers/norm/scale": jnp.ones((2, 4)), "out/bias": jnp.ones(4)}


def test_a_large_gradient_is_scaled_to_the_norm_and_a_small_one_is_left_alone():
    optimizer = clipped(optax.sgd(1.0), max_norm=1.0)
    for scale, norm in ((100.0, 1.0), (0.01, 0.01 * np.sqrt(44))):
        grads = {name: scale * value for name, value in PARAMS.items()}
        updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
        np.testing.assert_allclose(optax.tree.norm(updates), norm, rtol=1e-5)


def test_a_limit_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"max_norm 0\.0 must be above 0"):
        clipped(optax.sgd(1.0), max_norm=0.0)


def test_weight_decay_spares_scales_and_biases_even_when_layers_are_stacked():
    optimizer = optax.adamw(0.1, weight_decay=0.5, mask=AllExcept())
    zeros = {name: jnp.zeros_like(value) for name, value in PARAMS.items()}
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["layers/mlp/wi"], -0.05, rtol=1e-6)
    assert not updates["layers/norm/scale"].any() and not updates["out/bias"].any()


def test_a_pattern_that_spares_nothing_is_refused():
    with pytest.raises(ValueError, match="matches no parameter name, such as layers/mlp/wi"):
        AllExcept("scales$")(PARAMS)
    with pytest.raises(ValueError, match="is no regular expression"):
        AllExcept("(")
