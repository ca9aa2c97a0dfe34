"""What is left of a corpus when `t5x_like curate` is killed, anywhere, and with several workers: always the same."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.corpus.test_minhash import text, word

STEPS = ("MinHash", "RepeatedLines", "RepeatedPassages")
RECIPE = """
curate.sources = [@Source()]
Source.name = 'pages'
Source.language = 'en'
Source.reader = @JsonLines()
curate.steps = [@RepairText(), {steps}, @GopherRepetition()]
RepeatedPassages.keep = 'first'
curate.shards = 2
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> pathlib.Path:
    """Two files: texts, some twice, some with one word changed, some that share a line or a passage."""
    folder = tmp_path_factory.mktemp("raw")
    rng = random.Random(0)
    texts = [text(rng, 200) for _ in range(30)]
    passage, line = text(rng, 60), text(rng, 12)
    texts += texts[:5] + [[*t[:90], word(rng), *t[91:]] for t in texts[5:12]]
    texts += [[*t[:100], *passage, *t[100:]] for t in (text(rng, 200) for _ in range(4))]
    texts += [[*t, "\n", *line] for t in (text(rng, 200) for _ in range(4))]
    rng.shuffle(texts)
    for number in range(2):
        lines = [json.dumps({"text": " ".join(words)}) for words in texts[number::2]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines))
    (folder / "recipe.gin").write_text(RECIPE.format(steps=", ".join(f"@{step}()" for step in STEPS)))
    return folder


def arguments(raw: pathlib.Path, out: pathlib.Path, *others: str) -> list[str]:
    return [
        "curate", f"--gin_file={raw}/recipe.gin", f"JsonLines.paths=['{raw}/*.jsonl']", f"output_dir={out}", *others
    ]  # fmt: skip


def command(*told: str) -> list[str]:
    code = "import sys; from t5x_like.corpus import run; run.PART_BYTES = 1; from t5x_like import launch; launch.main()"
    return [sys.executable, "-c", code, *told]


def digests(out: pathlib.Path) -> list[str]:
    assert not list(out.glob("*.tmp")) and not (out / "work").exists()
    return [shard["sha256"] for shard in json.loads((out / "manifest.json").read_text())["shards"]]


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory) -> list[str]:
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(command(*arguments(raw, out)), check=True, capture_output=True)
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    taken = {name.partition(":")[0] for name in counts if "candidate" not in name}
    assert taken >= {"MinHash", "RepeatedLines", "RepeatedPassages"}
    return digests(out)


def test_killed_before_every_rename_in_turn_the_corpus_is_that_of_one_run(raw, whole, tmp_path):
    log, out = tmp_path / "kills", tmp_path / "out"
    told = [sys.executable, "-m", "tests.corpus.killed_everywhere", str(log), *arguments(raw, out)]
    ended = subprocess.run(told, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    killed = log.read_text().splitlines()
    stages = len(STEPS) + 1
    assert {f"stage{stage}-{part:06d}.json" for stage in range(stages) for part in range(2)} <= set(killed)
    assert {f"stage{stage}-chosen.npy" for stage in range(stages - 1)} | {"manifest.json"} <= set(killed)
    assert len(killed) == len(set(killed)) > 30
    assert digests(out) == whole


def test_two_workers_killed_in_the_third_stage_and_begun_again_leave_the_same_corpus(raw, whole, tmp_path):
    out = tmp_path / "out"
    told = command(*arguments(raw, out, "workers=2"))
    with subprocess.Popen(told, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while not (out / "work" / "stage2-000000.json").exists() and first.poll() is None:
            time.sleep(0.002)
        os.killpg(first.pid, signal.SIGKILL)
    assert not (out / "manifest.json").exists()
    subprocess.run(told, check=True, capture_output=True)
    assert digests(out) == whole


def test_a_worker_that_is_killed_is_one_sentence_and_the_same_command_goes_on(raw, whole, tmp_path):
    out = tmp_path / "out"
    told = command(*arguments(raw, out, "workers=2"))
    with subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as first:
        while not (out / "work" / "stage0-000000.json").exists() and first.poll() is None:
            time.sleep(0.002)
        for worker in workers_of(first.pid):
            os.kill(worker, signal.SIGKILL)
        _, said = first.communicate()
    assert first.returncode == 2 and "Traceback" not in said
    assert "a worker was killed" in said and "the same command goes on" in said
    subprocess.run(told, check=True, capture_output=True)
    assert digests(out) == whole


def workers_of(pid: int) -> list[int]:
    """Its children that multiprocessing started to work; the one that tracks resources is none."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]
