"""Optimizer state in host memory: where it lies, the same numbers, and checkpoints that others read."""

import contextlib

import jax
import numpy as np
import optax

from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.host_memory import in_host_memory
from t5x_like.optimizers.schedule_free import evaluated, schedule_free_adamw
from t5x_like.train import checkpoints
from tests.partitioning import mesh_runs

MESH = {"fsdp": 4, "tensor": 2}


def after(optimizer, steps=3):
    _, plan, step = mesh_runs.set_up(mesh_runs.model_of("llama", 1), sizes=MESH, optimizer=optimizer)
    state, losses = plan.create(jax.random.key(0)), []
    for batch in mesh_runs.batches_of("llama", steps):
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return plan, state, losses


def test_moments_lie_split_in_host_memory_before_and_after_a_step_and_learn_the_same(tmp_path):
    plan, state, losses = after(in_host_memory(clipped(optax.adamw(1e-2))))
    _, usual, expected = after(clipped(optax.adamw(1e-2)))
    np.testing.assert_array_equal(losses, expected)
    for leaf, told, other in zip(*map(jax.tree.leaves, (state, plan.abstract, usual)), strict=True):
        assert leaf.sharding.is_equivalent_to(told.sharding, leaf.ndim)
        np.testing.assert_array_equal(leaf, other)
    for leaf in jax.tree.leaves(state.opt_state):
        assert leaf.sharding.memory_kind == ("pinned_host" if leaf.ndim else "device")
    assert all(leaf.sharding.memory_kind == "device" for leaf in state.params.values())
    moment = state.opt_state.inner[1][0].mu["stack/layers/cycle/0/mlp/up"]
    assert moment.sharding.shard_shape(moment.shape) == (1, 4, 16)

    with contextlib.closing(checkpoints.Checkpoints(tmp_path)) as saver:
        saver.save(3, state, data={}, metadata={})
    restored = checkpoints.restore(tmp_path, 3, plan.abstract)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert jax.tree.map(lambda x: x.sharding.memory_kind, restored) == jax.tree.map(
        lambda x: x.sharding.memory_kind, state
    )


def test_the_mean_of_a_schedule_free_run_is_taken_on_the_device():
    _, state, _ = after(in_host_memory(schedule_free_adamw(1e-2)), steps=1)
    found = evaluated(state.params, state.opt_state)
    assert all(leaf.sharding.memory_kind == "device" for leaf in found.values())
