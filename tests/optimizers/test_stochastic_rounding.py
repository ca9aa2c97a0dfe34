"""Parameters in bfloat16: the rounding's mean, its two neighbours, and the same bits on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.losses import CrossEntropy
from t5x_like.models.parameter_type import kept_in
from t5x_like.models.parameters import merge
from t5x_like.optimizers.eight_bit_state import eight_bit_state
from t5x_like.optimizers.stochastic_rounding import rounded_to_bfloat16, stochastically_rounded
from t5x_like.partitioning.mesh import on_mesh
from t5x_like.partitioning.placement import bytes_per_device
from t5x_like.partitioning.stages import pipelined
from t5x_like.train.one_forward_one_backward import one_forward_one_backward
from t5x_like.train.step import accumulated, split_rows
from tests.partitioning import mesh_runs


@pytest.mark.parametrize("value", [1.0012, -1.0012, 3.14159e-20, -65535.7, 1.996, 2.5e-39])
def test_a_value_goes_to_its_two_neighbours_with_itself_as_the_mean(value):
    num = 40_000
    exact = np.float32(value).astype(np.float64)
    found = np.asarray(rounded_to_bfloat16(jax.random.key(0), jnp.full(num, value, jnp.float32)), np.float64)
    toward_zero = (np.float32(value).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    away = (toward_zero.view(np.uint32) + np.uint32(0x10000)).view(np.float32)
    low, high = sorted([float(toward_zero), float(away)])
    assert set(found) == {low, high}
    share = (exact - low) / (high - low)
    assert abs((found == high).mean() - share) < 4 * (share * (1 - share) / num) ** 0.5


def test_what_is_exact_stays_and_what_is_not_finite_stays():
    largest = float(jnp.finfo(jnp.bfloat16).max)
    values = jnp.array([0.0, -0.0, 1.0, -3.5, 2.0**-126, largest, np.inf, -np.inf, np.nan], jnp.float32)
    for seed in range(20):
        found = rounded_to_bfloat16(jax.random.key(seed), values)
        np.testing.assert_array_equal(found, values)
        assert (np.signbit(found) == np.signbit(values)).all()


def test_each_update_parameter_and_seed_has_its_own_noise_and_no_other():
    params = {name: jnp.ones(4096, jnp.bfloat16) for name in ("a", "b")}
    grads = jax.tree.map(lambda x: jnp.full(x.shape, 2.0**-9, jnp.float32), params)

    def two_updates(seed):
        optimizer, found = stochastically_rounded(optax.sgd(1.0), seed), []
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
            found += [np.asarray(update) for update in updates.values()]
        return found

    first, again, other = two_updates(0), two_updates(0), two_updates(1)
    np.testing.assert_array_equal(first, again)
    for i, one in enumerate(first + other):
        assert 0.45 < (one != 0).mean() < 0.55
        for another in (first + other)[i + 1 :]:
            assert 0.45 < (one != another).mean() < 0.55


def test_updates_below_half_of_the_last_place_move_a_parameter_only_when_rounded_by_chance():
    """200 updates of 2**-11 from 1, whose neighbour above is 2**-7 away: to 1.098 on average, or nowhere at all."""
    start = {"w": jnp.ones(2048, jnp.bfloat16)}
    grads = {"w": jnp.full(2048, -(2.0**-11), jnp.float32)}

    def after(optimizer):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=200))()
        assert params["w"].dtype == jnp.bfloat16
        return np.asarray(params["w"], np.float64)

    np.testing.assert_array_equal(after(optax.sgd(1.0)), 1.0)
    moved = after(stochastically_rounded(optax.sgd(1.0)))
    step = 2.0**-7  # the deviation of one element is that of 200 draws with p = 1/16
    np.testing.assert_allclose(moved.mean(), 1 + 200 * 2.0**-11, atol=4 * step * (200 / 16 * 15 / 16 / 2048) ** 0.5)


def in_bfloat16(**changes):
    return functools.partial(kept_in, model=mesh_runs.model_of("llama", **changes))


def test_a_run_is_the_same_on_any_mesh_and_with_any_micro_batches():
    """The noise is: only where a gradient differs in its last place (of bfloat16 in a micro-batch) may an element."""
    batches = mesh_runs.batches_of("llama", 3)

    def parameters(**how):
        optimizer = stochastically_rounded(optax.sgd(0.03, momentum=0.9))
        _, plan, step = mesh_runs.set_up(in_bfloat16(num_layers=1), optimizer=optimizer, **how)
        state = plan.create(jax.random.key(0))
        first = np.asarray(state.params["embedding/table"])
        for batch in batches:
            state, _ = step(state, batch, jax.random.key(1))
        assert all(param.dtype == jnp.bfloat16 for param in state.params.values())
        return np.concatenate([np.ravel(param) for param in jax.device_get(state.params).values()]), first

    one, first = parameters()
    assert (one[: first.size].reshape(first.shape) != first).mean() > 0.3
    for how, share in (({"sizes": {"fsdp": 4, "tensor": 2}}, 0.005), ({"num_microbatches": 4}, 0.03)):
        assert (parameters(**how)[0] != one).mean() < share, how


def test_gradients_are_added_up_in_float32_whatever_the_parameters_are_kept_in():
    model = in_bfloat16(layer_loop=pipelined(num_microbatches=1))
    ready = mesh_runs.set_up(model, sizes={"stage": 2}, optimizer=optax.sgd(1.0))
    batch = jax.tree.map(lambda x: split_rows(jnp.asarray(x), 2), mesh_runs.batches_of("llama", 1)[0])
    keys = jax.random.split(jax.random.key(0), 2)
    for gradients in (accumulated, one_forward_one_backward):
        run = on_mesh(ready.mesh, functools.partial(gradients, ready.plan.graphdef, CrossEntropy()))
        found = jax.eval_shape(run, ready.plan.abstract.params, batch, keys, jnp.float32(1))
        assert {grad.dtype for grad in found.gradients.values()} == {jnp.dtype("float32")}


def test_the_gradient_of_a_frequent_token_is_not_rounded_away_place_by_place():
    """512 times the same row: added in bfloat16, the sum would stop at 256."""
    ready = mesh_runs.set_up(in_bfloat16(num_layers=1), optimizer=optax.sgd(1.0))

    def total(params):
        tokens = jnp.zeros((1, 512), jnp.int32)
        return merge(ready.plan.graphdef, params).embedding(tokens).astype(jnp.float32).sum()

    grad = jax.grad(total)(ready.plan.create(jax.random.key(0)).params)["embedding/table"]
    np.testing.assert_array_equal(np.asarray(grad[0], np.float32), 512)


def test_a_parameter_and_its_state_take_four_bytes_where_adamw_takes_twelve():
    def bytes_of(model, optimizer):
        abstract = mesh_runs.set_up(model, optimizer=optimizer).plan.abstract
        parts = (abstract.params, abstract.opt_state)
        return [sum(map(bytes_per_device, jax.tree.leaves(part))) for part in parts]

    model = mesh_runs.model_of("llama", d_model=64, head_dim=8, d_ff=256)
    small = stochastically_rounded(eight_bit_state(optax.adamw(1e-3), not_compressed="scale", smallest=1))
    params, state = bytes_of(model, optax.adamw(1e-3))
    params_16, state_8 = bytes_of(functools.partial(kept_in, model=model), small)
    assert params_16 == params / 2 and state_8 < 0.3 * state


def test_parameters_that_need_no_rounding_are_refused_and_so_is_another_type():
    with pytest.raises(ValueError, match=r"no parameter is in bfloat16; set train.model = @kept_in"):
        stochastically_rounded(optax.sgd(1.0)).init({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="dtype 'float16': parameters are kept in one of bfloat16, float32"):
        kept_in(model=None, rngs=None, dtype="float16")
