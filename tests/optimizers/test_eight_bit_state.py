"""Optimizer state in 8 bits: the paper's values, the nearest of them, a quarter of the bytes, and the same learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.optimizers.eight_bit_state import Compressed, dequantise, eight_bit_state, quantise, values
from tests.golden.released_code import RELEASED


def test_the_values_are_those_of_released_code():
    found = RELEASED["bitsandbytes"]["found"]
    for name, signed in (("signed", True), ("unsigned", False)):
        table = values(signed=signed)
        assert len(table) == 256 and (np.diff(table) > 0).all() and 0 in table and table[-1] == 1
        np.testing.assert_allclose(table[::15], found[name], rtol=1e-6)
        np.testing.assert_allclose(np.abs(table).sum(), found[f"{name}_sum"], rtol=1e-6)


@pytest.mark.parametrize("is_second", [False, True])
@pytest.mark.parametrize("shape", [(6, 20), (3, 2, 16), (7,), (2, 3)])
def test_every_value_becomes_the_nearest_of_its_block(shape, is_second):
    array = (
        np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 10.0 ** np.arange(shape[-1])[::-1] / 1e6
    )
    array = array**2 if is_second else array
    state = quantise(jnp.asarray(array), 8, is_second)
    assert state.codes.dtype == jnp.int8 and state.codes.shape == shape
    assert state.scales.shape == (*shape[:-1], -(-shape[-1] // 8))
    found = np.asarray(dequantise(state, is_second))
    table = values(signed=not is_second)
    for start in range(0, shape[-1], 8):
        part, got = array[..., start : start + 8], found[..., start : start + 8]
        scale = np.abs(part).max(axis=-1, keepdims=True)
        nearest = np.abs(part[..., None] - scale[..., None] * table).min(axis=-1)
        np.testing.assert_allclose(np.abs(part - got), nearest, atol=1e-6 * scale.max())
    if is_second:  # what was rounded is not rounded again; of signed values the largest may be -0.993
        np.testing.assert_array_equal(quantise(jnp.asarray(found), 8, is_second).codes, state.codes)


def test_nothing_stays_nothing_and_has_no_scale_to_divide_by():
    state = quantise(jnp.zeros((2, 8)), 8, False)
    np.testing.assert_array_equal(dequantise(state, False), 0)
    assert (np.asarray(state.scales) == 0).all()


def problem():
    key = jax.random.key(0)
    x = jax.random.normal(key, (64, 128))
    true = {"layers/wi": jax.random.normal(key, (128, 32)) / 12, "layers/bias": jnp.ones(32)}
    y = x @ true["layers/wi"] + true["layers/bias"][None]
    params = jax.tree.map(jnp.zeros_like, true)
    return params, lambda p: ((x @ p["layers/wi"] + p["layers/bias"][None] - y) ** 2).mean()


def losses_of(optimizer, steps=200):
    params, loss = problem()
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    found = []
    for _ in range(steps):
        params, state, value = step(params, state)
        found.append(float(value))
    return np.array(found), state


def test_it_learns_as_with_state_in_float32_from_a_quarter_of_the_bytes():
    whole, state_32 = losses_of(optax.adam(1e-2))
    eight, state_8 = losses_of(eight_bit_state(optax.adam(1e-2)))
    np.testing.assert_allclose(eight[:20], whole[:20], rtol=0.02)
    assert eight[-20:].mean() < 2e-3 * eight[0] and whole[-20:].mean() < 2e-3 * whole[0]
    nodes = jax.tree.leaves(state_8, is_leaf=lambda node: isinstance(node, Compressed))
    moments = [node for node in nodes if isinstance(node, Compressed)]
    assert len(moments) == 2 and {m.codes.shape for m in moments} == {(128, 32)}

    def size(state):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    assert size(state_8) < 0.3 * size(state_32)


def test_first_moments_have_signs_and_second_ones_have_none():
    """Each is the nearest by the map of its kind: the signed one has half as many values for what is not negative."""
    grads = {"layers/wi": jax.random.normal(jax.random.key(1), (64, 128))}
    params = jax.tree.map(jnp.ones_like, grads)
    _, whole = optax.adam(1e-2).update(grads, optax.adam(1e-2).init(params))
    optimizer = eight_bit_state(optax.adam(1e-2))
    _, eight = optimizer.update(grads, optimizer.init(params))
    for found, exact, is_second in ((eight[0].mu, whole[0].mu, False), (eight[0].nu, whole[0].nu, True)):
        expected = quantise(exact["layers/wi"], 256, is_second)
        np.testing.assert_array_equal(found["layers/wi"].codes, expected.codes)
    assert float(dequantise(eight[0].nu["layers/wi"], True).min()) >= 0


def test_small_ones_embeddings_norms_and_biases_keep_their_state():
    params = {
        "embedding/table": jnp.ones((64, 128)),
        "layers/wi": jnp.ones((64, 128)),
        "layers/small": jnp.ones((4, 4)),
    }
    state = eight_bit_state(optax.adam(1e-2)).init(params | {"layers/scale": jnp.ones(8192)})
    mu = state[0].mu
    assert isinstance(mu["layers/wi"], Compressed)
    for name in ("embedding/table", "layers/small", "layers/scale"):
        assert mu[name].dtype == jnp.float32
    with pytest.raises(ValueError, match="block 0 and smallest"):
        eight_bit_state(optax.adam(1e-2), block=0)
