"""The battery that every optimizer passes. Add a row for a new one; add a test here, not in its own file."""

import functools
import pathlib

import jax
import numpy as np
import optax
import pytest

from t5x_like import configs
from t5x_like.commands.options import arguments_of
from t5x_like.configurables import CONFIGURABLES
from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.eight_bit_state import eight_bit_state
from t5x_like.optimizers.host_memory import in_host_memory
from t5x_like.optimizers.loss_scaling import loss_scaled
from t5x_like.optimizers.muon import muon
from t5x_like.optimizers.mup import mup_adamw
from t5x_like.optimizers.param_groups import AllExcept, grouped
from t5x_like.optimizers.schedule_free import schedule_free_adamw
from t5x_like.optimizers.soap import soap
from t5x_like.optimizers.stochastic_rounding import stochastically_rounded
from t5x_like.partitioning.axis_rules import AxisRules, optimizer_shardings, shardings
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train.state import plan_state

OPTIMIZERS = {
    "adamw": lambda rate: optax.adamw(rate, weight_decay=0.0),
    "adamw_clipped_decay_on_matrices": lambda rate: clipped(optax.adamw(rate, mask=AllExcept()), 1.0),
    "adafactor": lambda rate: optax.adafactor(rate, min_dim_size_to_factor=4),
    "muon": functools.partial(muon, consistent_rms=1.0),
    "grouped": lambda rate: grouped(
        {"embedding": optax.sgd(twenty_times(rate), momentum=0.9), "layers/": optax.adamw(rate)}
    ),
    "loss_scaled": lambda rate: unscaled(loss_scaled(optax.adamw(rate, weight_decay=0.0))),
    "eight_bit_adamw": lambda rate: eight_bit_state(optax.adamw(rate, weight_decay=0.0), block=8, smallest=1),
    "stochastically_rounded": lambda rate: kept_in_bfloat16(
        stochastically_rounded(optax.adamw(rate, weight_decay=0.0))
    ),
    # With this b1 its sums are exact, so that nothing is nothing.
    "schedule_free": lambda rate: schedule_free_adamw(ten_times(rate), b1=0.5),
    # Turned on the side whose factor has full rank here: of the other basis the rest is by chance.
    "soap": functools.partial(soap, every=5, longest=8),
    "mup_adamw": functools.partial(mup_adamw, width=16, base_width=8),
    "in_host_memory": lambda rate: in_host_memory(optax.adamw(rate, weight_decay=0.0)),
    "lion": lambda rate: optax.lion(rate, weight_decay=0.0),
    "sgd": lambda rate: optax.sgd(twenty_times(rate), momentum=0.9),
}


def twenty_times(rate):
    return (lambda step: 20.0 * rate(step)) if callable(rate) else 20.0 * rate


def ten_times(rate):
    return (lambda step: 10.0 * rate(step)) if callable(rate) else 10.0 * rate


def unscaled(optimizer):
    """What the train step does around it: gradients come multiplied by the scale."""

    def update(grads, state, params):
        return optimizer.update(jax.tree.map(lambda g: g * state.scale.astype(g.dtype), grads), state, params)

    return optax.GradientTransformation(optimizer.init, update)


def kept_in_bfloat16(optimizer):
    """As of a model that is kept in it; the battery's parameters have such values."""

    def rounded(p):
        return jax.tree.map(lambda x: x.astype("bfloat16"), p)

    def update(grads, state, p):
        return optimizer.update(grads, state, rounded(p))

    return optax.GradientTransformation(lambda p: optimizer.init(rounded(p)), update)


every = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)

# One scanned layer stack with its norm, and an embedding: the shapes that have to work.
AXES = {"layers/wi": ("layers", "embed", "mlp"), "layers/scale": ("layers", None), "embedding": ("vocab", "embed")}
SIZES = {"layers/wi": (2, 8, 16), "layers/scale": (2, 8), "embedding": (16, 8)}


def params(dtype="float32"):
    keys = jax.random.split(jax.random.key(0), len(SIZES))
    pairs = zip(SIZES.items(), keys, strict=True)
    return {name: (0.5 + jax.random.uniform(key, size)).astype("bfloat16").astype(dtype) for (name, size), key in pairs}


def distance(p):
    return sum(((x - 0.25) ** 2).mean() for x in jax.tree.leaves(p))


def updates_of(optimizer, steps, p, state):
    @jax.jit
    def step(p, state):
        updates, state = optimizer.update(jax.grad(distance)(p), state, p)
        return optax.apply_updates(p, updates), state

    for _ in range(steps):
        p, state = step(p, state)
    return p, state


@every
def test_approaches_the_minimum(make):
    optimizer, p = make(0.01), params()
    p, _ = updates_of(optimizer, 300, p, optimizer.init(p))
    assert float(distance(p)) < 0.02 * float(distance(params()))


@every
def test_a_schedule_of_zero_changes_nothing(make):
    optimizer, p = make(lambda step: 0.0), params()
    updates, _ = jax.jit(optimizer.update)(jax.grad(distance)(p), optimizer.init(p), p)
    for update in jax.tree.leaves(updates):
        np.testing.assert_array_equal(update, 0.0)


@every
def test_updates_keep_shape_and_dtype(make):
    optimizer, p = make(0.1), params("bfloat16")
    updates, _ = jax.jit(optimizer.update)(p, optimizer.init(p), p)
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == jax.tree.map(lambda x: (x.shape, x.dtype), p)


@every
def test_split_state_gives_the_numbers_of_whole_state_and_is_never_whole(make):
    optimizer, p = make(0.01), params()
    whole, _ = updates_of(optimizer, 5, p, optimizer.init(p))

    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    where = shardings(mesh, AxisRules(), p, AXES)
    plan = optimizer_shardings(jax.eval_shape(optimizer.init, p), p, where, mesh)
    init = jax.jit(lambda p: (p, optimizer.init(p)), out_shardings=(where, plan))
    split, state = init(p)
    for array in jax.tree.leaves(state):
        if array.size >= p["embedding"].size:
            assert array.addressable_shards[0].data.size == array.size // 4, array.sharding
    split, state = updates_of(optimizer, 5, split, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), split, whole)


@pytest.mark.parametrize("path", sorted(pathlib.Path("configs/optimizers").glob("*.gin")), ids=lambda path: path.stem)
def test_every_recipe_builds_an_optimizer_for_its_model(path, tmp_path):
    file = tmp_path / "run.gin"
    model = "kept_in.model = @Decoder\n" if "@kept_in" in path.read_text() else ""
    file.write_text(f"include 'models/llama_tiny.gin'\ninclude 'optimizers/{path.name}'\n{model}")
    table = {**CONFIGURABLES, "train": arguments_of(CONFIGURABLES["train"])}
    where = {"root": "train", "search_paths": ["configs"]}
    left = configs.left_open(table, [str(file)], **where)
    supplied = [key.removeprefix("train.") for key in left if key.startswith("train.")]
    answers = {"total_steps": 500, "decay_steps": 20}
    overrides = [f"--gin.{key}={answers[key.rsplit('.', 1)[1]]}" for key in left if not key.startswith("train.")]
    run = configs.resolve(table, [str(file)], overrides, supplied=supplied, **where).call(**dict.fromkeys(supplied))
    plan = plan_state(run["model"], run["optimizer"], make_mesh(data=1, fsdp=8), AxisRules())
    large = [leaf for leaf in jax.tree.leaves(plan.abstract.opt_state) if leaf.size >= 64 * 64]
    assert large and all(leaf.sharding.shard_shape(leaf.shape) != leaf.shape for leaf in large)
    assert float(run["learning_rate"](0)) > 0
