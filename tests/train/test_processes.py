"""Runs in real processes: killed, asked to stop, and several as one."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train import run_folder
from tests.train import tiny

TIMEOUT = 240


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared")
    tiny.write_data(path)
    return path


def start(directory, model_dir, steps, *peers) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.train.worker", str(directory), str(model_dir), str(steps), *map(str, peers)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})


def finish(process: subprocess.Popen) -> str:
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return err


def rows(model_dir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def wait_for_step(model_dir: pathlib.Path, step: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        path = model_dir / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.01)
    raise TimeoutError(f"step {step} was not reached in {TIMEOUT} s")


def wait_for_checkpoint(checkpoints: pathlib.Path, *, after: int) -> int:
    """The first step beyond `after` whose save is complete."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        newest = max(run_folder.checkpoint_steps(checkpoints), default=0)
        if newest > after:
            return newest
        time.sleep(0.01)
    raise TimeoutError(f"no checkpoint beyond step {after} in {TIMEOUT} s")


def one_device():
    return make_mesh(data=1, devices=jax.devices()[:1])


def test_a_run_killed_at_random_moments_logs_and_learns_the_same(directory, tmp_path):
    steps, rng = 60, random.Random(os.getpid())
    whole = tiny.run(tmp_path / "whole", tiny.pipeline(directory), steps, mesh=one_device)
    newest = 0
    for _ in range(2):
        process = start(directory, tmp_path / "killed", steps)
        wait_for_checkpoint(tmp_path / "killed" / "checkpoints", after=newest)
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        # It may have saved once more before it was killed: the next one is killed after a save of its own.
        newest = max(run_folder.checkpoint_steps(tmp_path / "killed" / "checkpoints"))
        assert process.returncode == -signal.SIGKILL
    finish(start(directory, tmp_path / "killed", steps))
    events = [json.loads(line)["text"] for line in (tmp_path / "killed" / "events.jsonl").read_text().splitlines()]
    assert sum(text.startswith("resuming from step") for text in events) == 2  # it did restart, twice, and not at 0
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    killed = tiny.run(tmp_path / "killed", tiny.pipeline(directory), steps, mesh=one_device)
    jax.tree.map(np.testing.assert_array_equal, killed, whole)


def test_sigterm_saves_and_the_same_command_goes_on(directory, tmp_path):
    process = start(directory, tmp_path, 10_000)
    wait_for_step(tmp_path, 5)
    process.send_signal(signal.SIGTERM)
    assert "run the same command to resume" in finish(process)
    stopped_at = rows(tmp_path)[-1]["step"]
    assert run_folder.checkpoint_steps(tmp_path / "checkpoints")[-1] == stopped_at
    assert f"resuming from step {stopped_at}" in finish(start(directory, tmp_path, stopped_at + 2))


def test_a_second_run_in_one_folder_is_refused_and_harms_nothing(directory, tmp_path):
    first = start(directory, tmp_path, 10_000)
    wait_for_step(tmp_path, 1)
    with pytest.raises(RuntimeError, match=rf"in use by .*{first.pid}"):
        tiny.run(tmp_path, tiny.pipeline(directory), 10)
    first.send_signal(signal.SIGTERM)
    finish(first)
    steps = [row["step"] for row in rows(tmp_path)]
    assert steps == list(range(len(steps)))


def test_two_processes_give_the_losses_of_one_and_a_run_moves_between_them(directory, tmp_path):
    """`two` starts as two processes and goes on as one, `moved` starts as one, goes on as two and as one again."""
    two, moved, one = (tmp_path / name for name in ("two", "moved", "one"))
    tiny.run(moved, tiny.pipeline(directory), 3, mesh=one_device)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    both = os.pathsep.join(map(str, (two, moved)))
    for peer in [start(directory, both, 6, coordinator, i, 2) for i in range(2)]:
        finish(peer)
    for folder in (two, moved):
        tiny.run(folder, tiny.pipeline(directory), 8, mesh=one_device)
    tiny.run(one, tiny.pipeline(directory), 6, mesh=lambda: make_mesh(data=2, devices=jax.devices()[:2]))
    tiny.run(one, tiny.pipeline(directory), 8, mesh=one_device)
    assert "resuming from step 3" in (moved / "events.jsonl").read_text()
    for folder in (two, moved):
        assert [row["step"] for row in rows(folder)] == [row["step"] for row in rows(one)]
        for name in ("loss", "grad_norm", "loss_weight"):
            got, expected = ([row[name] for row in rows(path)[1:]] for path in (folder, one))
            np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=f"{folder.name}, {name}")
