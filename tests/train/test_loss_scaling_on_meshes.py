"""FP16 scaling with clipping, micro-batches, ZeRO and stages: what overflows is counted, never applied."""

import jax
import numpy as np
import optax
import pytest

from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.loss_scaling import loss_scaled
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.stages import pipelined
from t5x_like.train.one_forward_one_backward import one_forward_one_backward
from tests.partitioning import mesh_runs

TOO_HIGH = 2.0**60  # any gradient overflows in float16
SCRIPT = ".o.oo.."  # o: a step whose scale is too high
STAGES = AxisRules(vocab=("stage", "tensor"), vocab_activation=("stage", "tensor"))
HOW = {
    "ZeRO-1, 2 micro-batches": {
        "sizes": {"data": 2, "fsdp": 2},
        "rules": AxisRules(embed=None),
        "optimizer_rules": AxisRules(),
        "num_microbatches": 2,
    },
    "1F1B, 4 micro-batches": {
        "sizes": {"stage": 2, "fsdp": 2},
        "rules": STAGES,
        "gradients": one_forward_one_backward,
        "num_microbatches": 4,
    },
}


def run(script, batches, **how):
    """Metrics and (params, inner state) after every step."""
    changes = {"layer_loop": pipelined(num_microbatches=1)} if "stage" in how.get("sizes", {}) else {}
    optimizer = loss_scaled(clipped(optax.adamw(1e-2), max_norm=0.1), initial=2.0**6, window=100, hysteresis=2)
    ready = mesh_runs.set_up(mesh_runs.model_of("llama", 2, dtype="float16", **changes), optimizer=optimizer, **how)
    state, rows, states = ready.plan.create(jax.random.key(0)), [], []
    for kind, batch in zip(script, batches, strict=True):
        usual = state.opt_state.scale
        if kind == "o":
            high = jax.device_put(np.float32(TOO_HIGH), usual.sharding)
            usual = np.float32(usual)
            state = state._replace(opt_state=state.opt_state._replace(scale=high))
        state, metrics = ready.step(state, batch, jax.random.key(1))
        rows.append(jax.tree.map(float, metrics))
        if kind == "o":
            fell = float(state.opt_state.scale) / TOO_HIGH
            scale = jax.device_put(usual * np.float32(fell), state.opt_state.scale.sharding)
            state = state._replace(opt_state=state.opt_state._replace(scale=scale))
        states.append(jax.tree.map(np.array, (state.params, state.opt_state.inner)))
    return rows, states


@pytest.mark.parametrize("name", HOW)
def test_an_overflow_is_counted_and_never_applied_and_other_steps_are_those_of_one_device(name):
    batches = mesh_runs.batches_of("llama", len(SCRIPT))
    rows, states = run(SCRIPT, batches, **HOW[name])
    assert [row["skipped_steps"] for row in rows] == [0, 1, 1, 2, 3, 3, 3]
    # Hysteresis 2: of three overflows the second since the last change halves the scale.
    assert [row["loss_scale"] for row in rows] == [64, TOO_HIGH, 64, TOO_HIGH, TOO_HIGH, 32, 32]
    for number, kind in enumerate(SCRIPT):
        if kind == "o":
            assert rows[number]["update_norm"] == 0.0
            jax.tree.map(np.testing.assert_array_equal, states[number], states[number - 1])

    applied = [number for number, kind in enumerate(SCRIPT) if kind == "."]
    alone, _ = run("." * len(applied), [batches[number] for number in applied])
    for part in ("loss", "grad_norm"):
        expected = [row[part] for row in alone]
        np.testing.assert_allclose([rows[number][part] for number in applied], expected, rtol=5e-3)
    assert min(row["grad_norm"] for row in alone) > 0.1  # the clip acts in every step
