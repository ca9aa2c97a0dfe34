import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.muon import muon
from t5x_like.optimizers.param_groups import AllExcept, grouped

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


def test_every_parameter_belongs_to_exactly_one_group():
    params = {"embedding/table": jnp.ones((4, 2)), "stack/scale": jnp.ones(2)}
    optimizer = grouped({"embedding": optax.sgd(0.0), "stack": optax.sgd(1.0)})
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert (updates["embedding/table"] == 0).all() and (updates["stack/scale"] == -1).all()
    for groups, message in (
        ({"stack": optax.sgd(1.0)}, "it matches none of"),
        ({"e": optax.sgd(1.0), "embedding": optax.sgd(1.0)}, "it matches 2 of the patterns"),
        ({"embedding|stack": optax.sgd(1.0), "head": optax.sgd(1.0)}, "match no parameter"),
        ({"(": optax.sgd(1.0)}, "is no regular expression"),
    ):
        with pytest.raises(ValueError, match=message):
            grouped(groups).init(params)


def test_muon_makes_the_momentum_of_every_matrix_orthogonal_and_leaves_the_rest_to_adamw():
    """One step from zero momentum: the update of a matrix has singular values near 1, per layer and for all heads."""
    rng = np.random.default_rng(0)
    sizes = {
        "embedding/table": (16, 8),
        "stack/layers/mlp/up": (2, 8, 16),
        "stack/layers/attention/query": (2, 8, 2, 4),
        "stack/layers/attention/out": (2, 2, 4, 8),
        "stack/layers/norm/scale": (2, 8),
    }
    params = {name: jnp.asarray(rng.normal(size=size), jnp.float32) for name, size in sizes.items()}
    optimizer = muon(1.0, consistent_rms=None)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for name, shape in (("mlp/up", (2, 8, 16)), ("attention/query", (2, 8, 8)), ("attention/out", (2, 8, 8))):
        values = np.linalg.svd(updates[f"stack/layers/{name}"].reshape(shape), compute_uv=False)
        assert values.min() > 0.5 and values.max() < 1.3 * np.sqrt(max(1, shape[-1] / shape[-2])), (name, values)
    adam = optax.adamw(1.0, b2=0.95, weight_decay=0.0)
    expected, _ = adam.update(params, adam.init(params), params)
    for name in ("embedding/table", "stack/layers/norm/scale"):
        np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5)
