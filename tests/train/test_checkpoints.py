import json
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.partitioning.axis_rules import AxisRules, optimizer_shardings, shardings
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train import checkpoints, digests, run_folder
from t5x_like.train.checkpoints import Checkpoints
from tests.train.launch_processes import outcome, running, wait_for_line


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


SHAPES = {
    "decoder/layers/0/wi": jax.ShapeDtypeStruct((16, 32), jnp.float32),
    "decoder/norm/scale": jax.ShapeDtypeStruct((16,), jnp.bfloat16),
}
AXES = {"decoder/layers/0/wi": ("embed", "mlp"), "decoder/norm/scale": ("embed",)}
ONLY_WI = {name: "wi" in name for name in SHAPES}
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.masked(optax.adamw(1e-2), ONLY_WI))
DATA = {"format": 1, "streams": [3, 1, 4], "name": "é"}


def plan(mesh, shapes=SHAPES):
    """Shapes, dtypes and shardings of a whole train state on this mesh."""
    where = shardings(mesh, AxisRules(), shapes, AXES)
    abstract = jax.eval_shape(OPTIMIZER.init, shapes)
    placed = State(
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
        where,
        optimizer_shardings(abstract, shapes, where, mesh),
    )
    shape = State(jax.ShapeDtypeStruct((), jnp.int32), dict(shapes), abstract)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shape, placed)


def random_state(target, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jax.device_put(jnp.asarray(rng.integers(-999, 999, x.shape), x.dtype), x.sharding), target
    )


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right)


MESH = make_mesh(data=2, fsdp=2, tensor=2)
TARGET = plan(MESH)
STATE = random_state(TARGET)


@pytest.fixture
def folder(tmp_path):
    """A run's checkpoints 1, 2 and 3, each with other numbers."""
    save_steps(tmp_path / "checkpoints", (1, 2, 3))
    return tmp_path / "checkpoints"


def save_steps(folder, steps, **options):
    writer = Checkpoints(folder, **options)
    for step in steps:
        writer.save(step, random_state(TARGET, step), data={**DATA, "step": step}, metadata={"note": "a test"})
        writer.check()
    writer.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- What is saved comes back.


def test_state_data_and_metadata_come_back_as_they_were(folder):
    assert checkpoints.latest_valid(folder) == (3, [])
    assert_same(checkpoints.restore(folder, 3, TARGET), random_state(TARGET, 3))
    assert run_folder.read_json(folder / "3", "data") == {**DATA, "step": 3}
    assert run_folder.read_json(folder / "3", "metadata")["run"] == {"note": "a test"}


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32, sharding=one_device)}
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 - 1, state), donate_argnums=0)
    state, writer = random_state(target), Checkpoints(tmp_path)
    writer.save(1, state, data={}, metadata={})
    overwrite(state)
    writer.close()
    assert_same(checkpoints.restore(tmp_path, 1, target), random_state(target))


@pytest.mark.parametrize("sizes", [{"data": 8}, {"fsdp": 8}, {"data": 4, "tensor": 2}, {"fsdp": 2, "tensor": 4}])
def test_a_checkpoint_is_restored_onto_another_mesh_bit_for_bit(folder, sizes):
    target = plan(make_mesh(**{"data": 1, **sizes}))
    state = checkpoints.restore(folder, 3, target)
    assert_same(state, random_state(TARGET, 3))
    for array, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(target), strict=True):
        assert array.sharding == wanted.sharding


def test_a_checkpoint_of_eight_devices_is_restored_onto_three_and_onto_one(folder):
    for devices in (jax.devices()[:1], jax.devices()[3:4], jax.devices()[5:7]):
        target = plan(make_mesh(data=len(devices), devices=devices))
        assert_same(checkpoints.restore(folder, 2, target), random_state(TARGET, 2))


def test_parameters_alone_go_to_one_device_or_to_a_mesh(folder):
    saved = checkpoints.saved_arrays(folder, 3)
    assert {name: saved[f"params/{name}"] for name in SHAPES} == SHAPES
    params = checkpoints.restore_params(folder, 3, SHAPES)
    assert_same(params, random_state(TARGET, 3).params)
    assert all(array.devices() == {jax.devices()[0]} for array in params.values())
    params = checkpoints.restore_params(folder, 3, TARGET.params)
    assert params["decoder/layers/0/wi"].sharding == TARGET.params["decoder/layers/0/wi"].sharding


def test_a_copied_and_renamed_folder_is_as_good(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a copy" / "ckpt")
    shutil.rmtree(folder)
    assert checkpoints.latest_valid(tmp_path / "a copy" / "ckpt")[0] == 3
    assert_same(checkpoints.restore(tmp_path / "a copy" / "ckpt", 3, TARGET), random_state(TARGET, 3))


def test_another_model_is_one_error_that_lists_every_difference(folder):
    shapes = {
        "decoder/layers/0/wi": jax.ShapeDtypeStruct((16, 64), jnp.float32),
        "decoder/norm/scales": jax.ShapeDtypeStruct((16,), jnp.bfloat16),
    }
    with pytest.raises(ValueError) as error:
        checkpoints.restore_params(folder, 3, shapes)
    text = str(error.value)
    assert "1 arrays missing, 1 extra, 1 different" in text
    assert "missing: params/decoder/norm/scales bfloat16[16] (saved as params/decoder/norm/scale?)" in text
    assert "different: params/decoder/layers/0/wi was saved as float32[16, 32], is now float32[16, 64]" in text
    with pytest.raises(ValueError, match="extra: opt_state/1/inner_state/0/mu/decoder/layers/0/wi"):
        checkpoints.restore(folder, 3, TARGET._replace(opt_state=()))


# ---- Which steps there are.


def test_old_steps_go_and_milestones_stay(tmp_path):
    save_steps(tmp_path, range(1, 8), max_to_keep=2, keep_period=3)
    assert run_folder.checkpoint_steps(tmp_path) == [3, 6, 7]
    assert not [name for name in names(tmp_path) if "tmp" in name]


def test_saving_the_newest_step_again_does_nothing_and_an_older_one_is_refused(folder):
    writer = Checkpoints(folder)
    writer.save(3, STATE, data={}, metadata={})
    with pytest.raises(ValueError, match="checkpoint 2 is older than 3"):
        writer.save(2, STATE, data={}, metadata={})
    writer.close()
    assert_same(checkpoints.restore(folder, 3, TARGET), random_state(TARGET, 3))


def test_keeping_no_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_to_keep 0 must be at least 1"):
        Checkpoints(tmp_path, max_to_keep=0)


def test_inspection_lists_steps_sizes_and_digests(folder):
    (folder / "2" / "state" / "manifest.ocdbt").write_bytes(b"?")
    one, two, three = run_folder.inspect_steps(folder)
    assert (one.step, one.problems, three.step, three.problems) == (1, [], 3, [])
    assert two.problems and "state/manifest.ocdbt differs from what was written" in two.problems[0]
    assert one.num_bytes > 16 * 32 * 4 * 3 and one.metadata["run"] == {"note": "a test"}


def test_the_manifest_is_read_by_sha256sum(folder):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    done = subprocess.run(["sha256sum", "-c", digests.MANIFEST], cwd=folder / "3", capture_output=True, text=True)
    assert done.returncode == 0 and "state/manifest.ocdbt: OK" in done.stdout


# ---- Damage.


def flip(path: pathlib.Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_detected(folder):
    step = folder / "3"
    files = [step / name for name in digests.sealed_files(step)] + [step / digests.MANIFEST]
    bits = [(file, bit) for file in files for bit in range(8 * file.stat().st_size)]
    # Anywhere, and in the arrays, where Orbax notices nothing.
    arrays = [(file, bit) for file, bit in bits if "/d/" in str(file)]
    rng = random.Random(0)
    for file, bit in rng.sample(bits, 20) + rng.sample(arrays, 20):
        flip(file, bit)
        wrong = digests.problems(step)
        assert wrong and (file.name in wrong[0]), (file, bit, wrong)
        flip(file, bit)
    assert digests.problems(step) == []


def test_the_stamps_that_no_digest_covers_decide_nothing(folder):
    for name in digests.UNSEALED:
        (folder / "3" / name).write_bytes(b"\xff damaged")
    assert checkpoints.latest_valid(folder) == (3, [])
    save_steps(folder, [4])
    assert_same(checkpoints.restore(folder, 3, TARGET), random_state(TARGET, 3))
    assert run_folder.checkpoint_steps(folder) == [2, 3, 4]


def largest(step):
    return max((step / name for name in digests.sealed_files(step)), key=lambda path: path.stat().st_size)


def truncate(step):
    largest(step).write_bytes(largest(step).read_bytes()[:-1])


def add_a_file(step):
    (step / "state" / "d" / "stranger").write_bytes(b"x")


def empty(step):
    shutil.rmtree(step)
    step.mkdir()


DAMAGE = {
    "truncated": (truncate, "differs from what was written"),
    "emptied file": (lambda step: largest(step).write_bytes(b""), "differs from what was written"),
    "missing file": (lambda step: largest(step).unlink(), "is missing"),
    "missing data position": (lambda step: shutil.rmtree(step / "data"), "data/commit_success.txt is missing"),
    "missing manifest": (lambda step: (step / digests.MANIFEST).unlink(), "SHA256SUMS is missing"),
    "cut manifest": (lambda step: (step / digests.MANIFEST).write_text("0"), "SHA256SUMS is damaged"),
    "strange file": (add_a_file, "is not in SHA256SUMS"),
    "empty folder": (empty, "the folder holds no file"),
}


@pytest.mark.parametrize("damage, why", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_step_is_set_aside_and_the_one_before_it_is_used(folder, damage, why):
    damage(folder / "3")
    step, notes = checkpoints.latest_valid(folder)
    assert step == 2
    (note,) = notes
    assert why in note and "checkpoint 3 set aside" in note and note.endswith("going back to step 2")
    assert run_folder.checkpoint_steps(folder) == [1, 2] and len(run_folder.set_aside(folder)) == 1
    save_steps(folder, [3])  # the run goes on, and the new step 3 is sound
    assert checkpoints.latest_valid(folder) == (3, [])
    assert_same(checkpoints.restore(folder, 2, TARGET), random_state(TARGET, 2))


def test_when_every_step_is_damaged_the_run_does_not_start_again_at_zero(folder):
    for step in (1, 2, 3):
        truncate(folder / str(step))
    for _ in range(2):  # nor at the second attempt
        with pytest.raises(ValueError, match=r"no checkpoint in .* is sound .*ask for a fresh start"):
            checkpoints.latest_valid(folder)
        assert run_folder.checkpoint_steps(folder) == [1, 2, 3]
    assert checkpoints.latest_valid(folder, start_fresh=True)[0] is None
    assert run_folder.checkpoint_steps(folder) == [] and len(run_folder.set_aside(folder)) == 3


def test_an_empty_folder_alone_is_no_checkpoint(tmp_path):
    assert checkpoints.latest_valid(tmp_path / "none") == (None, [])
    (tmp_path / "2").mkdir()
    step, (note,) = checkpoints.latest_valid(tmp_path)
    assert step is None and note.endswith("the folder holds no file; starting at step 0")


# ---- Saves that fail.


def test_a_full_disk_is_told_at_a_later_step_and_leaves_the_earlier_ones_alone(tmp_path):
    save_steps(tmp_path, (1, 2))
    writer, big = Checkpoints(tmp_path), {"w": jnp.zeros(1_000_000) + jnp.arange(1_000_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))  # the system refuses larger files, as a full disk does
    try:
        writer.save(3, big, data={}, metadata={})
        with pytest.raises(OSError, match=r"checkpoint 3 was not saved .*File too large.* Sound steps before it: 1, 2"):
            for _ in range(400):
                writer.check()
                time.sleep(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run_folder.checkpoint_steps(tmp_path) == [1, 2] and not [name for name in names(tmp_path) if "tmp" in name]
    assert checkpoints.latest_valid(tmp_path) == (2, [])
    writer.save(4, STATE, data={}, metadata={})
    writer.close()
    assert checkpoints.latest_valid(tmp_path) == (4, [])


def test_a_folder_that_went_away_is_told_at_once(tmp_path):
    writer = Checkpoints(tmp_path / "checkpoints")
    writer.wait()
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match="checkpoint 1 was not saved"):
        writer.save(1, STATE, data={}, metadata={})


SAVE_FOR_EVER = """
import sys, jax.numpy as jnp
from t5x_like.train.checkpoints import Checkpoints, latest_valid
step, notes = latest_valid(sys.argv[1])
print("resumed", step, flush=True)
writer = Checkpoints(sys.argv[1], max_to_keep=1)
for step in range((step or 0) + 1, 10**6):
    writer.save(step, {"w": jnp.full((1000, 1000), step, jnp.float32)}, data={"step": step}, metadata={})
    print("saving", step, flush=True)
"""


def test_killed_at_any_moment_the_run_has_one_sound_step_and_goes_on_from_it(tmp_path):
    rng = random.Random(1)
    target = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
    newest = 0
    for _ in range(2):
        with running(SAVE_FOR_EVER, tmp_path) as (process,):
            resumed = wait_for_line(process, "resumed").split()[1]
            assert resumed == (str(newest) if newest else "None"), "the restart did not resume"
            wait_for_line(process, f"saving {newest + 3}")
            time.sleep(rng.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
        step, notes = checkpoints.latest_valid(tmp_path)
        assert notes == [] and step >= newest + 2
        assert (np.asarray(checkpoints.restore(tmp_path, step, target)["w"]) == step).all()
        assert run_folder.read_json(tmp_path / str(step), "data") == {"step": step}
        newest = step
    save_steps(tmp_path, [newest + 1])
    assert not [name for name in names(tmp_path) if "tmp" in name]


TWO_PROCESSES = """
import pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from t5x_like.train import checkpoints, distributed
folder, coordinator, process = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
distributed.start_distributed(coordinator=coordinator, num_processes=2, process_id=process, heartbeat_seconds=10)
from t5x_like.partitioning.mesh import make_mesh
where = jax.sharding.NamedSharding(make_mesh(fsdp=4, data=1), jax.sharding.PartitionSpec("fsdp"))
target = {"params": {"w": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=where)}}
writer = checkpoints.Checkpoints(folder)
for step in (1, 2, 3):
    state = {"params": {"w": jax.jit(lambda: jnp.arange(32.0).reshape(8, 4) * step, out_shardings=where)()}}
    writer.save(step, state, data={"step": step}, metadata={})
    writer.check()
writer.close()
if process == 0:
    damaged = max((folder / "3" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[::-1])
jax.experimental.multihost_utils.sync_global_devices("damaged")
step, notes = checkpoints.latest_valid(folder)
restored = checkpoints.restore(folder, step, target)["params"]["w"]
expected = 2 * np.arange(32.0).reshape(8, 4)[4 * process: 4 * process + 2]
np.testing.assert_array_equal(restored.addressable_data(0), expected)
writer = checkpoints.Checkpoints(folder)
writer.save(3, state, data={"step": 3}, metadata={})
writer.close()
print("went back to", step, len(notes))
"""


def test_two_processes_save_one_checkpoint_share_its_check_and_one_process_restores_it(tmp_path):
    with running(TWO_PROCESSES, tmp_path, num_processes=2) as processes:
        for process in processes:
            code, output, errors = outcome(process)
            assert code == 0, errors
            assert "went back to 2 1" in output
    assert checkpoints.latest_valid(tmp_path) == (3, [])
    params = checkpoints.restore_params(tmp_path, 3, {"w": jax.ShapeDtypeStruct((8, 4), jnp.float32)})
    np.testing.assert_array_equal(params["w"], np.arange(32.0).reshape(8, 4) * 3)
    assert json.loads((tmp_path / "3" / "data" / "metadata").read_text()) == {"step": 3}
