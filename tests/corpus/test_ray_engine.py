"""A recipe on a Ray cluster gives the shards that processes give. `make test` brings Ray, beside the environment."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from t5x_like.corpus import ray_engine, run

RAY = pathlib.Path(sys.prefix) / "ray"


def test_a_cluster_of_two_whose_worker_is_killed_writes_the_same_bytes_as_one_process(tmp_path):
    if not (RAY / "ray").is_dir():
        pytest.skip(f"no Ray in {RAY}: there is none for this machine, or `make test` did not run")
    paths = os.pathsep.join([str(pathlib.Path.cwd()), str(RAY)])
    command = [sys.executable, "-m", "tests.corpus.ray_run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=300)
    assert done.returncode == 0, done.stderr
    (by_ray, died, said), (alone, _, _) = (
        json.loads(line)
        for line in done.stdout.splitlines()
        if line.startswith("[{")  # Ray tells of the death itself
    )
    assert died and {name for name in alone if by_ray[name] != alone[name]} <= {"forecast"}  # which tells seconds
    assert by_ray["counts"]["ExactDuplicates: duplicate words"] == 8 == by_ray["counts"]["MinHash: near duplicate"]
    for shard in by_ray["shards"]:
        one, other = ((tmp_path / name / shard["name"]).read_bytes() for name in ("ray", "processes"))
        assert one == other
    assert said[0].startswith("[Errno 2] No such file or directory")


def test_without_ray_its_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = ray_engine.ray_tasks(2)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 't5x_like\[ray\]', or leave engine out"):
        engine.__enter__()


def test_one_worker_is_no_process_of_its_own():
    with run.processes(1) as map_jobs:
        assert list(map_jobs(lambda _: os.getpid(), [0])) == [os.getpid()]
