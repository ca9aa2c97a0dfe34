"""Dynamic loss scaling: the trace of the scale, and that nothing of an overflow is applied."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.loss_scaling import loss_scaled, scale_of

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.ones((2, 2))}


def run(optimizer, script):
    """Scales after each step, and the states; `script` has o for an overflow, . for a good step."""
    state, params, scales, states = optimizer.init(PARAMS), PARAMS, [], []
    update = jax.jit(optimizer.update)
    for number, kind in enumerate(script):
        bad = jnp.inf if number % 2 else jnp.nan
        scale = scale_of(state)
        grads = {name: 0.1 * param * scale for name, param in params.items()}
        if kind == "o":
            grads["a"] = grads["a"].at[1].set(bad)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        scales.append(float(scale_of(state)))
        states.append((params, state))
    return scales, states


def test_the_scale_doubles_after_a_window_of_good_steps_and_halves_at_an_overflow():
    """flax.training.dynamic_scale (0.12.8) doubles one good step later: its last scales here are 4 4 8 4."""
    scales, states = run(loss_scaled(optax.sgd(0.1), initial=16.0, window=3), "...o..o....o")
    assert scales == [16, 16, 32, 16, 16, 16, 8, 8, 8, 16, 16, 8]
    assert int(states[-1][1].skipped_steps) == 3


def test_hysteresis_forgives_and_the_floor_holds():
    """Megatron-LM: with hysteresis 2 the second overflow since the last change halves the scale."""
    scales, _ = run(loss_scaled(optax.sgd(0.1), initial=16.0, window=4, hysteresis=2), "o.o....o.o")
    assert scales == [16, 16, 8, 8, 8, 8, 16, 16, 16, 8]
    scales, _ = run(loss_scaled(optax.sgd(0.1), initial=4.0, floor=2.0), "oooo")
    assert scales == [2, 2, 2, 2]


def test_a_step_that_is_skipped_changes_nothing_and_the_others_are_those_without_scaling():
    optimizer = clipped(optax.adamw(0.1), max_norm=0.05)
    _, scaled = run(loss_scaled(optimizer, initial=1024.0, window=2), ".o..o.")
    _, plain = run(optimizer, "....")
    for (before, old), (after, new) in ((scaled[0], scaled[1]), (scaled[3], scaled[4])):
        assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), (before, old.inner), (after, new.inner)))
    for kept, expected in zip((0, 2, 3, 5), plain, strict=True):
        params, state = scaled[kept]
        jax.tree.map(np.testing.assert_array_equal, (params, state.inner), expected)  # the scale is a power of two


def test_what_cannot_be_is_refused():
    for wrong in ({"initial": 3.0}, {"window": 0}, {"hysteresis": 0}, {"floor": 2.0**20}, {"floor": 0.0}):
        with pytest.raises(ValueError):
            loss_scaled(optax.sgd(0.1), **wrong)
    inside = clipped(loss_scaled(optax.sgd(0.1)))
    with pytest.raises(ValueError, match="put it outside"):
        scale_of(inside.init(PARAMS))
    assert scale_of(optax.adamw(0.1).init(PARAMS)) == 1.0
