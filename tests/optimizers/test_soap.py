"""SOAP against the paper's algorithm in float64, and where its square factors lie."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.optimizers.soap import Side, soap
from t5x_like.partitioning.axis_rules import AxisRules, optimizer_shardings, shardings
from t5x_like.partitioning.mesh import make_mesh
from tests.golden.released_code import RELEASED

RATE, B1, B2, EPS, EVERY = 0.01, 0.9, 0.95, 1e-8, 3


def by_the_paper(weight, grads):
    """Algorithm 3, the first gradient making the bases alone, in float64: the weight after each gradient."""
    size = weight.shape
    m, v = np.zeros(size), np.zeros(size)
    left, right = np.zeros((size[0],) * 2), np.zeros((size[1],) * 2)
    for t, grad in enumerate(grads):
        if t > 0:
            m = B1 * m + (1 - B1) * grad
            v = B2 * v + (1 - B2) * (q_left.T @ grad @ q_right) ** 2
            m_hat, v_hat = q_left.T @ m @ q_right / (1 - B1**t), v / (1 - B2**t)
            weight = weight - RATE * (q_left @ (m_hat / (np.sqrt(v_hat) + EPS)) @ q_right.T)
        left = B2 * left + (1 - B2) * grad @ grad.T
        right = B2 * right + (1 - B2) * grad.T @ grad
        if t == 0:
            q_left, q_right = (np.linalg.eigh(factor)[1][:, ::-1] for factor in (left, right))
        elif t % EVERY == 0:
            by_left = np.argsort(-np.diag(q_left.T @ left @ q_left))
            by_right = np.argsort(-np.diag(q_right.T @ right @ q_right))
            q_left = np.linalg.qr(left @ q_left[:, by_left])[0]
            q_right = np.linalg.qr(right @ q_right[:, by_right])[0]
            v = v[by_left][:, by_right]
        yield weight


def test_it_is_the_papers_algorithm_for_scanned_layers_and_for_heads():
    rng, num = np.random.default_rng(0), 9
    shapes = {"layers/wi": (2, 6, 6), "layers/0/attention/query": (6, 2, 3), "layers/0/attention/out": (2, 3, 6)}
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    grads = {name: rng.standard_normal((num, *shape)) for name, shape in shapes.items()}
    expected = {
        name: [list(by_the_paper(w, g)) for w, g in zip(
            params[name].reshape(-1, 6, 6), np.moveaxis(grads[name].reshape(num, -1, 6, 6), 1, 0), strict=True
        )]
        for name in shapes
    }  # fmt: skip
    optimizer = soap(RATE, b1=B1, b2=B2, eps=EPS, every=EVERY)
    found = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state, update = optimizer.init(found), jax.jit(optimizer.update)
    for t in range(num):
        updates, state = update({name: jnp.asarray(g[t], jnp.float32) for name, g in grads.items()}, state, found)
        found = optax.apply_updates(found, updates)
        for name, weights in expected.items():
            moved = np.stack([of_layer[t] for of_layer in weights]) - params[name].reshape(-1, 6, 6)
            measured = np.asarray(found[name]).reshape(-1, 6, 6) - params[name].reshape(-1, 6, 6)
            np.testing.assert_allclose(measured, moved, atol=1e-3 * RATE, err_msg=f"{name} at {t}")


@pytest.mark.parametrize("name, longest", [("layers/wi", 5), ("layers/wo", 10_000)])
def test_weights_go_where_the_released_code_takes_them(name, longest):
    """To a hundredth of a step: that code decays the weight after it has moved it, and adds eps before it corrects."""
    weight, gradients = (jnp.asarray(RELEASED["SOAP"]["inputs"][kind][name]) for kind in ("weights", "gradients"))
    optimizer = soap(0.01, b1=0.9, b2=0.95, weight_decay=0.1, every=3, longest=longest)
    params, update, found = {name: weight}, jax.jit(optimizer.update), []
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = update({name: gradient}, state, params)
        params = optax.apply_updates(params, updates)
        found.append(np.asarray(params[name]).ravel())
    np.testing.assert_allclose(np.stack(found)[[0, 1, 4, 7]], RELEASED["SOAP"]["found"][name], atol=1e-4)


def test_a_gradient_in_one_direction_is_followed_in_it():
    """Where Adam would step along every axis: the gradient of rank one has one eigenvector on either side."""
    u, w = np.array([3.0, 4.0]) / 5, np.array([1.0, 2.0, 2.0]) / 3
    params, grads = {"layers/wi": jnp.zeros((2, 3))}, {"layers/wi": jnp.asarray(np.outer(u, w), jnp.float32)}
    optimizer = soap(1.0)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
    along = u @ np.asarray(updates["layers/wi"]) @ w
    np.testing.assert_allclose(along, -1.0, rtol=1e-4)


def test_factors_of_a_mesh_are_split_over_both_of_their_dimensions():
    axes = {
        "layers/wi": ("layers", "embed", "mlp"),
        "layers/query": ("layers", "embed", "heads", "head_dim"),
        "layers/out": ("layers", "heads", "head_dim", "embed"),
    }
    sizes = {"layers/wi": (3, 8, 16), "layers/query": (3, 8, 4, 6), "layers/out": (3, 4, 6, 8)}
    shapes = {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes.items()}
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    placed = shardings(mesh, AxisRules(), shapes, axes)
    plan = optimizer_shardings(jax.eval_shape(soap(0.1).init, shapes), shapes, placed, mesh)
    state = plan.inner_states["hidden"].inner_state[0]
    expected = {"wi": ((3, 8, 8), (3, 16, 16)), "query": ((3, 8, 8), (3, 24, 24)), "out": ((3, 24, 24), (3, 8, 8))}
    for name, pair in expected.items():
        for side, shape in zip((state.rows, state.columns), pair, strict=True):
            for part in side[f"layers/{name}"]:
                assert np.prod(part.shard_shape(shape)) == np.prod(shape) / 8, (name, shape, part.spec)


def test_it_takes_the_same_steps_on_a_mesh():
    params, axes = {"layers/wi": jnp.ones((2, 16, 16))}, {"layers/wi": ("layers", "embed", "mlp")}
    grads = jax.random.normal(jax.random.key(0), (6, 2, 16, 16))
    optimizer, mesh = soap(0.01, every=2), make_mesh(data=1, fsdp=4, tensor=2)

    def after(place):
        where = shardings(mesh, AxisRules(), params, axes)
        plan = optimizer_shardings(jax.eval_shape(optimizer.init, params), params, where, mesh)
        start = jax.jit(lambda p: (p, optimizer.init(p)), **({"out_shardings": (where, plan)} if place else {}))
        found, state = start(params)
        update = jax.jit(optimizer.update)
        for grad in grads:
            updates, state = update({"layers/wi": grad}, state, found)
            found = optax.apply_updates(found, updates)
        return np.asarray(found["layers/wi"])

    np.testing.assert_allclose(after(True), after(False), rtol=2e-5)


def test_a_side_that_is_too_long_is_not_turned():
    params = {"layers/wi": jnp.ones((4, 32))}
    optimizer = soap(0.1, longest=16)
    state = optimizer.init(params)
    inner = state.inner_states["hidden"].inner_state[0]
    assert inner.columns["layers/wi"] == Side(None, None) and inner.rows["layers/wi"].factor.shape == (4, 4)
    for _ in range(2):
        updates, state = optimizer.update(params, state, params)
    assert np.isfinite(updates["layers/wi"]).all() and (updates["layers/wi"] != 0).any()
    with pytest.raises(ValueError, match="every 0 and longest"):
        soap(0.1, every=0)
