"""The numbers of a run: unchanged by devices, micro-batches, hosts and interruptions."""

import functools
import json
import math
import pathlib

import jax
import numpy as np
import optax
import pytest

from t5x_like.optimizers.loss_scaling import loss_scaled
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train import run_folder
from t5x_like.train.state import plan_state
from tests.train import tiny

STEPS = 6
ONE_DEVICE = {"data": 1, "devices": 1}
WHOLE = AxisRules(embed=None)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared")
    tiny.write_data(path)
    return path


def mesh_of(devices=None, **sizes):
    return functools.partial(make_mesh, **sizes, devices=jax.devices()[:devices])


def rows(model_dir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def reference(directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    tiny.run(folder, tiny.pipeline(directory), STEPS, mesh=mesh_of(**ONE_DEVICE))
    return rows(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh": mesh_of(data=8)},
        {"mesh": mesh_of(data=1, fsdp=8)},
        {"mesh": mesh_of(data=2, fsdp=2, tensor=2)},
        {"mesh": mesh_of(data=1, fsdp=8), "axis_rules": WHOLE, "optimizer_rules": AxisRules()},
        {"mesh": mesh_of(**ONE_DEVICE), "num_microbatches": 4},
        {"mesh": mesh_of(devices=4, data=4), "num_microbatches": 2},
    ],
    ids=[
        "data 8",
        "fsdp 8",
        "data 2 x fsdp 2 x tensor 2",
        "ZeRO",
        "4 micro-batches",
        "data 4, 2 micro-batches",
    ],
)
def test_the_same_losses_however_the_work_is_split(directory, reference, tmp_path, changes):
    tiny.run(tmp_path, tiny.pipeline(directory), STEPS, **changes)
    got = rows(tmp_path)
    assert [row["step"] for row in got] == list(range(STEPS + 1))
    for name in ("loss", "grad_norm", "loss_weight"):
        np.testing.assert_allclose([r[name] for r in got[1:]], [r[name] for r in reference[1:]], rtol=2e-4)
    np.testing.assert_allclose(
        [r["eval/prefixes/loss"] for r in got if "eval/prefixes/loss" in r],
        [r["eval/prefixes/loss"] for r in reference if "eval/prefixes/loss" in r],
        rtol=2e-4,
    )


def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(directory, reference, tmp_path):
    data = tiny.pipeline(directory)
    tiny.run(tmp_path, data, 3, mesh=mesh_of(**ONE_DEVICE))
    whole = tiny.run(tmp_path, data, STEPS, mesh=mesh_of(**ONE_DEVICE))
    events = [json.loads(line)["text"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert "resuming from step 3" in events
    # Row 3 of the first part was its last step, so it holds an evaluation too.
    assert [r for r in rows(tmp_path) if r["step"] != 3] == [r for r in reference if r["step"] != 3]
    assert int(whole.step) == STEPS


def test_a_run_that_moves_from_8_devices_to_4_to_6_is_the_run_that_never_moved(directory, reference, tmp_path):
    """Other axes each time, every array in other pieces; the third mesh splits the vocabulary in 3 and nothing else.

    Only the order of sums differs, which float32 rounds otherwise by some 1e-7: so 1e-5, where a state that is lost or
    put in another place shows in the third digit.
    """
    data = tiny.pipeline(directory)
    vocabulary = AxisRules(heads=None, kv_heads=None, mlp=None, heads_activation=None, mlp_activation=None)
    tiny.run(tmp_path, data, 2, mesh=mesh_of(data=2, fsdp=2, tensor=2))
    tiny.run(tmp_path, data, 4, mesh=mesh_of(devices=4, data=1, fsdp=2, context=2))
    tiny.run(tmp_path, data, STEPS, mesh=mesh_of(devices=6, data=2, tensor=3), axis_rules=vocabulary)
    got, expected = rows(tmp_path)[1:], reference[1:]
    for name in ("loss", "grad_norm", "loss_weight", "update_norm"):
        np.testing.assert_allclose([r[name] for r in got], [r[name] for r in expected], rtol=1e-5, err_msg=name)


def test_parameters_and_optimizer_state_lie_where_the_plan_says(directory, tmp_path):
    data = tiny.pipeline(directory)
    mesh = mesh_of(data=2, fsdp=2, tensor=2)
    for steps in (3, 4):  # fresh, and restored
        state = tiny.run(tmp_path, data, steps, mesh=mesh)
        for name, param in state.params.items():
            assert len(param.sharding.device_set) == 8
            for moment in (state.opt_state[0].mu, state.opt_state[0].nu):
                assert moment[name].sharding == param.sharding
        assert not state.params["embedding/table"].sharding.is_fully_replicated


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 3e-3), ("bfloat16", 2e-2)])
def test_half_precision_follows_the_losses_of_float32(directory, reference, tmp_path, dtype, tolerance):
    """The tolerance is some units in the last place of the dtype (5e-4, 4e-3), since every activation is rounded."""
    optimizer = optax.adamw(1e-2)
    if dtype == "float16":
        optimizer = loss_scaled(optimizer, initial=2.0**19)  # too high: the first steps overflow, and are skipped
    model = functools.partial(tiny.MODEL, dtype=dtype)
    tiny.run(tmp_path, tiny.pipeline(directory), STEPS, model=model, optimizer=optimizer, mesh=mesh_of(**ONE_DEVICE))
    got = rows(tmp_path)[1:]
    if dtype == "bfloat16":
        np.testing.assert_allclose([r["loss"] for r in got], [r["loss"] for r in reference[1:]], rtol=tolerance)
        return
    skipped = [row["skipped_steps"] for row in got]
    assert skipped[0] == 1 and [row["loss_scale"] for row in got] == [
        2.0 ** (19 - before) for before in [0, *skipped[:-1]]
    ]
    applied = [row["loss"] for row, now, before in zip(got, skipped, [0, *skipped], strict=False) if now == before]
    # Batches go on where updates were skipped, so only the first loss is that of the same parameters and batch.
    np.testing.assert_allclose(got[0]["loss"], reference[1]["loss"], rtol=tolerance)
    assert len(applied) >= 2 and applied[-1] < applied[0]


def test_zero_stages_split_what_they_say(directory):
    """Bytes of the state on each of 8 devices, from its placement; in the order of arXiv:1910.02054, figure 1."""

    def bytes_of(rules, optimizer_rules):
        plan = plan_state(tiny.MODEL, optax.adamw(1e-2), make_mesh(data=1, fsdp=8), rules, optimizer_rules)

        def held(tree):
            return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))

        return held(plan.abstract.params), held(plan.abstract.opt_state)

    params, moments = bytes_of(WHOLE, None)
    split = AxisRules(embed="fsdp")
    assert bytes_of(WHOLE, split)[0] == params
    assert moments / 8 <= bytes_of(WHOLE, split)[1] < 1.2 * moments / 8
    assert params / 8 <= bytes_of(split, None)[0] < 1.2 * params / 8
    assert bytes_of(split, None)[1] == bytes_of(WHOLE, split)[1]


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_state(directory, tmp_path):
    explode = optax.sgd(lambda step: jax.numpy.where(step < 4, 1e-3, 1e30))
    with pytest.raises(FloatingPointError, match="step 5: update_norm is inf"):
        tiny.run(tmp_path, tiny.pipeline(directory), 9, optimizer=explode, mesh=mesh_of(**ONE_DEVICE))
    assert run_folder.checkpoint_steps(tmp_path / "checkpoints") == [3]
    assert rows(tmp_path)[-1]["update_norm"] == "inf"


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(directory, reference, tmp_path):
    data = tiny.pipeline(directory)
    tiny.run(tmp_path, data, STEPS, mesh=mesh_of(**ONE_DEVICE))
    victim = max((tmp_path / "checkpoints" / "6" / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    tiny.run(tmp_path, data, STEPS, mesh=mesh_of(**ONE_DEVICE))
    events = [json.loads(line)["text"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert any("checkpoint 6 set aside" in text and "going back to step 3" in text for text in events)
    assert rows(tmp_path) == reference


def test_other_data_than_the_checkpoint_was_trained_on_is_refused(directory, tmp_path):
    tiny.run(tmp_path, tiny.pipeline(directory), 3)
    with pytest.raises(ValueError, match="batch_size was 8, is 16"):
        tiny.run(tmp_path, tiny.pipeline(directory, batch_size=16), 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps 0 must be at least 1"),
        ({"num_microbatches": 3}, "batch_size 8 does not divide by 24"),
        ({"mesh": mesh_of(data=3)}, "3 devices"),
        ({"model": functools.partial(tiny.MODEL, vocab_size=300)}, "vocabulary has 359 ids and the model 300"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(directory, tmp_path, changes, message):
    settings = {"steps": 3} | changes
    with pytest.raises(ValueError, match=message):
        tiny.run(tmp_path / "run", tiny.pipeline(directory), **settings)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_writes_nothing(directory, tmp_path, capsys):
    tiny.run(tmp_path / "run", tiny.pipeline(directory), 3, dry_run=True)
    assert not (tmp_path / "run").exists()
    assert "temporaries" in capsys.readouterr().err
