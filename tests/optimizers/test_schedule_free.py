"""Schedule-Free AdamW against the paper's three sequences, and one loss in the loop, in `evaluate` and by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like import losses
from t5x_like.evaluation import load
from t5x_like.evaluation import run as evaluation
from t5x_like.models.parameters import merge
from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.eight_bit_state import eight_bit_state
from t5x_like.optimizers.loss_scaling import loss_scaled
from t5x_like.optimizers.param_groups import AllExcept, grouped
from t5x_like.optimizers.schedule_free import evaluated, schedule_free_adamw
from t5x_like.optimizers.schedules import warmup_constant
from t5x_like.train import checkpoints
from t5x_like.train.initial import FromCheckpoint
from tests.evaluation.test_run import held_out, one_device
from tests.train import tiny

B1, B2, EPS, DECAY = 0.9, 0.99, 1e-8, 0.1


def by_the_paper(y, grads, rates):
    """Algorithm 1 of the paper, in float64: x and y after each gradient; `y` has one weight that does not decay."""
    x, z, v, total = y.copy(), y.copy(), np.zeros_like(y), 0.0
    decays = np.array([DECAY, DECAY, 0.0])
    for step, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        v = B2 * v + (1 - B2) * grad**2
        direction = grad / (np.sqrt(v / (1 - B2**step)) + EPS) + decays * y
        z = z - rate * direction
        total += rate**2  # rates never fall, so this is the largest so far
        x = (1 - rate**2 / total) * x + rate**2 / total * z
        y = (1 - B1) * z + B1 * x
        yield x, y


def test_it_is_the_papers_algorithm_with_warm_up_and_decay():
    schedule = warmup_constant(0.1, 3)
    optimizer = schedule_free_adamw(schedule, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY, mask=AllExcept())
    rng = np.random.default_rng(0)
    grads, start = rng.standard_normal((8, 3)), np.array([1.0, -2.0, 0.5])

    def named(values):
        values = jnp.asarray(values, jnp.float32)
        return {"wi": values[:2], "scale": values[2:]}

    params = named(start)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    expected = by_the_paper(start, grads, [float(schedule(step)) for step in range(8)])
    for grad, (x, y) in zip(grads, expected, strict=True):
        updates, state = update(named(grad), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(np.concatenate([params["wi"], params["scale"]]), y, rtol=2e-5)
        means = evaluated(params, state)
        np.testing.assert_allclose(np.concatenate([means["wi"], means["scale"]]), x, rtol=2e-5)


def test_its_mean_is_found_inside_other_optimizers_and_is_that_of_its_own_parameters():
    params = {"a": jnp.ones(4), "b": jnp.ones(4)}
    both = grouped({"^a$": schedule_free_adamw(0.1), "^b$": optax.sgd(0.1)})
    optimizer = loss_scaled(clipped(both, 1.0))
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(lambda x: x * 65536.0, params), state, params)
        params = optax.apply_updates(params, updates)
    found = evaluated(params, state)
    assert (found["a"] != params["a"]).all() and found["b"] is params["b"]
    assert evaluated(params, optax.adamw(0.1).init(params)) is params


def test_weights_in_eight_bits_are_refused():
    params = {"layers/wi": jnp.ones((64, 128))}
    with pytest.raises(ValueError, match="weights in its state, and those of layers/wi are compressed"):
        evaluated(params, eight_bit_state(schedule_free_adamw(0.1)).init(params))


def test_the_loop_evaluation_and_continued_training_all_take_the_mean(tmp_path):
    tiny.write_data(tmp_path)
    data, folder = tiny.pipeline(tmp_path), tmp_path / "run"
    optimizer = clipped(schedule_free_adamw(0.05, b1=0.5))
    state = tiny.run(folder, data, 3, mesh=one_device, optimizer=optimizer, eval_every=3)
    run = load.Run(folder, {"model": tiny.MODEL, "data": data, "steps": 3, "mesh": one_device})
    loaded = load.load(run, 3, one_device())
    node = state.opt_state[1]
    for name, y in state.params.items():
        x = 2 * np.float64(y) - np.float64(node.z[name])
        np.testing.assert_allclose(loaded.params[name], x, rtol=1e-5, atol=1e-6)

    (line,) = [line for line in metrics_of(folder) if line["step"] == 3]
    (result,) = evaluation.evaluate(run, steps=[3], num_samples=0)
    batches, _ = held_out(run)

    @jax.jit
    def sum_of(params, batch):
        logits = merge(loaded.graphdef, params)(batch)
        return (losses.token_cross_entropy(logits, batch.targets) * batch.loss_weights).sum()

    weight = float(sum(batch.loss_weights.sum() for batch in batches))
    by_hand, of_y = (
        sum(float(sum_of(params, jax.tree.map(jnp.asarray, batch))) for batch in batches) / weight
        for params in (loaded.params, state.params)
    )
    assert abs(of_y / by_hand - 1) > 1e-3  # so that the two can be told apart
    np.testing.assert_allclose(result["tasks"]["prefixes"]["loss"], by_hand, rtol=1e-5)
    np.testing.assert_allclose(line["eval/prefixes/loss"], by_hand, rtol=1e-5)

    begun = FromCheckpoint(folder=str(folder / "checkpoints"))(loaded.params, loaded.params)
    jax.tree.map(np.testing.assert_array_equal, begun, loaded.params)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    resumed = checkpoints.restore(folder / "checkpoints", 3, abstract)
    jax.tree.map(np.testing.assert_array_equal, resumed, state)  # training itself goes on from y


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
