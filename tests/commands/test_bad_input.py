"""What is wrong is one sentence on stderr and an exit code; what is on disk stays as it is."""

import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

import jax
import pytest

from t5x_like.train import run_folder
from t5x_like.train.run_lock import RunLock
from tests.commands.command_line import Outcome, succeed, t5x_like


def is_one_sentence(outcome: Outcome, *, says: str, code: int = 2) -> None:
    errors = [line for line in outcome.err.splitlines() if line.startswith("t5x_like: error: ")]
    assert outcome.code == code, outcome.err
    assert len(errors) == 1 and outcome.err.splitlines()[-1] == errors[0], outcome.err
    assert says in errors[0] and "Traceback" not in outcome.err and "Errno" not in errors[0]


def contents(folder: pathlib.Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def flip_a_bit(step_folder: pathlib.Path) -> None:
    path = max((path for path in step_folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---- arguments


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["trian"], "no command 'trian': did you mean train?"),
        (["train"], "train needs a configuration: --gin_file="),
        (["train", "--gin_fil=x.gin"], "t5x_like train does not know '--gin_fil=x.gin'; did you mean --gin_file?"),
        (["train", "--gin_file=no.gin"], "no config file 'no.gin'"),
        (["train", "--gin_file=runs/quickstrt.gin"], "did you mean 'runs/quickstart.gin'?"),
        (["prepare", "--output_dir=x"], "t5x_like prepare: the following arguments are required: name"),
        (["prepare", "x_causal_lm", "steps=3", "--output_dir=x"], "t5x_like prepare takes no 'steps=3'"),
        (["prepare", "x", "--output_dir=x", "--workers=two"], "argument --workers: invalid int value: 'two'"),
        (["tokenizer", "trian"], "invalid choice: 'trian'"),
        (["evaluate", "no_such_run"], "no_such_run is not a run folder: it has no config.gin"),
        (["generate", "no_such_run", "--input=nothing.jsonl"], "nothing.jsonl: No such file or directory"),
        (["inspect", "no_such_run"], "no run folder no_such_run"),
        (["verify", "no_such_run"], "no run folder no_such_run"),
        (["report", "no_such_run"], "no_such_run"),
        (["doctor", "--folder=/proc/no_such_folder", "--fast"], "t5x_like doctor does not know '--fast'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    is_one_sentence(t5x_like(*arguments), says=says)
    assert not list(tmp_path.iterdir())


# ---- configurations


@pytest.mark.parametrize(
    "overrides, says",
    [
        (["stps=3"], "unknown name 'stps' (command line): no macro of the config and no parameter of train; did you"),
        (["adamw.beta2=0.9"], "beta2"),
        (["EncodrDecoder.d_ff=8"], "did you mean 'EncoderDecoder'"),
        (["steps=ten"], "train.steps = 'ten'"),
        (["Decoder.d_model=8"], "Decoder"),
        (["steps=0"], "steps 0 must be at least 1"),
        (["Pipeline.directory=nowhere"], "nor is there a folder nowhere"),
        (["Pipeline.mixture=small_denoisin"], "did you mean small_denoising?"),
        (["Pipeline.batch_size=12"], "batch=12 does not divide by 8 devices"),
        (["num_microbatches=3"], "batch_size 8 does not divide by 24 (3 micro-batches on 8 devices)"),
        (["--gin.train.mesh=@make_mesh", "make_mesh.data=3", "make_mesh.fsdp=2"], "needs 6 devices and there are 8"),
        (["--gin.train.mesh=@make_mesh", "make_mesh.tensor=3"], "8 devices do not divide by 3"),
        (["EncoderDecoder.vocab_size=300"], "vocabulary has 359 ids and the model 300"),
        (["Pipeline.lengths={'inputs': 64, 'targets': 8}"], "set targets to"),
        (
            ["Pipeline.mixture=small_span_corruption", "Pipeline.lengths={'inputs': 2, 'targets': 2}"],
            "cannot hold 2 tokens",
        ),
        (["Pipeline.lengths={'inputs': 4096, 'targets': 1024}"], "but the vocabulary has 100 sentinels"),
        (["Pipeline.lengths={'inputs': 64}"], "give inputs and targets (a decoder: targets alone)"),
        (
            ["Pipeline.mixture=small_causal_lm"],
            "a causal language model has no inputs, give targets alone",
        ),
        (
            ["Pipeline.mixture=small_causal_lm", "Pipeline.lengths={'targets': 64}"],
            "this objective gives no inputs to encode: train a Decoder on it, with render = @decoder_only",
        ),
        (["--gin.Pipeline.render=@decoder_only"], "the model has an encoder"),
        (["model_dir=/proc/nothing/here"], "cannot write to /proc/nothing/here"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(overrides, says, t5_gin, data, tmp_path):
    before = contents(data)
    arguments = [f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}", *overrides]
    is_one_sentence(t5x_like("train", *arguments), says=says)
    assert contents(data) == before and not list(tmp_path.iterdir())


def test_a_decoder_that_would_not_read_the_inputs_is_refused(decoder_gin, tmp_path):
    arguments = [f"--gin_file={decoder_gin}", f"model_dir={tmp_path / 'run'}", "Pipeline.mixture=small_denoising"]
    arguments += ["--gin.Pipeline.render=@encoder_decoder", "Pipeline.lengths={'inputs': 64, 'targets': 64}"]
    is_one_sentence(
        t5x_like("train", *arguments),
        says="no encoder beside its stack, so the data must give it lengths of",
    )
    assert not list(tmp_path.iterdir())


def test_several_problems_of_a_configuration_are_one_list(t5_gin, tmp_path):
    outcome = t5x_like("train", f"--gin_file={t5_gin}", "stps=1", "sed=2", f"model_dir={tmp_path / 'run'}")
    assert outcome.code == 2 and "t5x_like: error: 2 problems in the configuration:\n  unknown" in outcome.err


def test_a_run_whose_config_was_changed_by_hand_names_the_line(run):
    with (run / "config.gin").open("a") as file:
        file.write("Nothing.at_all = 3\n")
    before = contents(run)
    for command in (["evaluate", run], ["score", run, "--input=/dev/null"]):
        is_one_sentence(t5x_like(*command), says="Nothing")
    assert contents(run) == before


# ---- corpora


def test_a_corpus_that_cannot_be_read_is_one_sentence_and_leaves_no_dataset(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "folder").mkdir()
    whole = gzip.compress(b"".join(b'{"text": "line %d"}\n' % k for k in range(9999)))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    wrong = {
        "emty.txt": "there is empty.txt",
        "empty.txt": "has no documents at all",
        "folder": "has no .jsonl, .parquet, .py, .txt or .md file",
        "cut.jsonl.gz": "is truncated or damaged",
    }
    for corpus, says in wrong.items():
        arguments = ["--corpus", tmp_path / corpus, "--output_dir", tmp_path / "data"]
        is_one_sentence(t5x_like("prepare", f"{corpus.partition('.')[0]}_causal_lm", *arguments), says=says)
        train = ["tokenizer", "train", "--corpus", tmp_path / corpus, "--output", tmp_path / "a.model"]
        is_one_sentence(t5x_like(*train, "--vocab_size=300"), says="")
    assert not list(tmp_path.glob("data/*/task.json")) and not list(tmp_path.glob("a.model*"))


def test_text_that_is_not_utf8_is_counted_and_reported(tmp_path):
    (tmp_path / "latin.txt").write_bytes("täglich frisches Brot und Käse\n".encode("latin-1") * 20)
    arguments = ["--corpus", tmp_path / "latin.txt", "--output_dir", tmp_path / "data"]
    outcome = succeed("prepare", "latin_causal_lm", *arguments)
    assert "1 invalid_utf8" in outcome.err
    manifest = json.loads((tmp_path / "data" / "latin_causal_lm" / "task.json").read_text())
    assert manifest["splits"]["train"]["dropped"] == {"invalid_utf8": 1}


def test_a_name_that_no_task_has_is_one_sentence(corpus, tmp_path):
    arguments = ["--corpus", corpus, "--output_dir", tmp_path / "data"]
    is_one_sentence(t5x_like("prepare", "small", *arguments), says="with --corpus it ends in one of _denoising")
    is_one_sentence(t5x_like("tasks", "show", "python_stdlib"), says="no task or mixture 'python_stdlib': did you mean")
    missing = tmp_path / "no_tasks.py"
    is_one_sentence(t5x_like("tasks", "list", f"--module={missing}"), says=f"no task file {missing}")
    assert not (tmp_path / "data").exists()


def test_a_damaged_shard_is_named(data, t5_gin, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    shard = next(copy.glob("small_span_corruption/train-*.array_record"))
    whole = shard.read_bytes()
    arguments = [f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}", f"Pipeline.directory={copy}"]
    shard.write_bytes(whole[:-100])
    is_one_sentence(t5x_like("train", *arguments), says=f"{shard} has {len(whole) - 100} bytes, not {len(whole)}")
    (copy / "small_prefix_lm" / "task.json").write_text('{"format": 1,')
    is_one_sentence(t5x_like("train", *arguments), says="task.json")
    assert not (tmp_path / "run").exists()


# ---- run folders


def test_a_damaged_newest_checkpoint_is_set_aside_and_said_so(run):
    flip_a_bit(run / "checkpoints" / "4")
    again = succeed("train", f"--gin_file={run / 'config.gin'}", f"model_dir={run}")
    assert "checkpoint 4 set aside as 4.corrupt-*" in again.err and "going back to step 2" in again.err
    assert "resuming from step 2" in again.err and run_folder.checkpoint_steps(run / "checkpoints") == [2, 4]


def test_when_every_checkpoint_is_damaged_nothing_begins_again(run):
    for step in (2, 4):
        flip_a_bit(run / "checkpoints" / str(step))
    before = contents(run / "checkpoints")
    is_one_sentence(t5x_like("train", f"--gin_file={run / 'config.gin'}", f"model_dir={run}"), says="--start_fresh")
    is_one_sentence(t5x_like("evaluate", run), says="holds no sound checkpoint")
    assert contents(run / "checkpoints") == before


def test_a_second_run_in_the_folder_is_refused(run):
    before, lock = contents(run / "checkpoints"), RunLock(run)
    is_one_sentence(
        t5x_like("train", f"--gin_file={run / 'config.gin'}", f"model_dir={run}"), says="is in use by process"
    )
    assert f"in use by process {os.getpid()}" in succeed("inspect", run).out
    lock.release()
    assert contents(run / "checkpoints") == before


def test_a_model_dir_that_is_a_file_is_refused(t5_gin, tmp_path):
    (tmp_path / "run").write_text("mine")
    outcome = t5x_like("train", f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}")
    is_one_sentence(outcome, says=f"cannot write to {tmp_path / 'run'}")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_refused(data, t5_gin):
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        shutil.copytree(data, place / "data")
        (place / "t5.gin").write_text(t5_gin.read_text())
        overrides = [f"Pipeline.directory={place / 'data'}", f"model_dir={place / 'run'}"]
        with not_writable(place):
            outcome = t5x_like("train", f"--gin_file={place / 't5.gin'}", *overrides)
        is_one_sentence(outcome, says=f"cannot write to {place / 'run'}: Permission denied")


@contextlib.contextmanager
def not_writable(folder: pathlib.Path):
    """Meanwhile this user may read the folder and not write it; root, who may do all, is nobody in the block."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_numbers_that_are_not_finite_end_the_run_with_17_and_leave_the_last_checkpoint(run):
    before = contents(run / "checkpoints")
    changes = ["steps=9", "save_every=1", "warmup_cosine.peak=1e38", "warmup_cosine.total_steps=9"]
    outcome = t5x_like("train", f"--gin_file={run / 'config.gin'}", f"model_dir={run}", *changes)
    is_one_sentence(outcome, says="stopped before anything was saved over a good state", code=17)
    assert contents(run / "checkpoints") == before and not (run / "run.lock").exists()


# ---- full disks


class FullDisk:
    """No file of this process can grow beyond `limit` bytes, as on a full disk."""

    def __init__(self, limit: int):
        self._limit = limit

    def __enter__(self):
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, self._hard))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._soft, self._hard))


def test_a_disk_that_is_full_in_prepare_is_one_sentence_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "large.txt").write_text("".join(chr(33 + k * k % 91) for k in range(300_000)))
    command = ["prepare", "large_causal_lm", "--corpus", tmp_path / "large.txt", "--output_dir", tmp_path / "data"]
    with FullDisk(20_000):
        outcome = t5x_like(*command)
    is_one_sentence(outcome, says="the disk is full")
    assert not (tmp_path / "data" / "large_causal_lm").exists() and not list(tmp_path.glob("data/*/*.tmp"))
    succeed(*command)


ON_A_FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
sys.argv = ["t5x_like", *sys.argv[1:]]
runpy.run_module("t5x_like", run_name="__main__")
"""


def test_a_disk_that_is_full_in_a_save_is_one_sentence_and_the_same_command_goes_on(t5_gin, tmp_path):
    """In a process of its own: what a failed save leaves of Orbax's threads ends with it."""
    command = ["train", f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}"]
    full = [sys.executable, "-c", ON_A_FULL_DISK, *command]
    done = subprocess.run(full, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    is_one_sentence(Outcome(done.returncode, done.stdout, done.stderr), says="checkpoint 2 was not saved")
    assert run_folder.checkpoint_steps(tmp_path / "run" / "checkpoints") == []
    assert "finished at step 4" in succeed(*command).err


# ---- texts


@pytest.mark.parametrize(
    "line, says",
    [
        (b"not json\n", "line 2 is not JSON"),
        (b"[1]\n", "line 2: every line is an object with the texts inputs, targets"),
        (b'{"inputs": "only"}\n', "line 2: every line is an object with the texts inputs, targets"),
        (b'{"inputs": "\xff", "targets": ""}\n', "line 2 is not UTF-8 text"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named_before_the_model_is_loaded(line, says, trained, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"inputs": "a", "targets": "b"}\n' + line)
    arguments = ["--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
    is_one_sentence(t5x_like("score", trained, *arguments), says=says)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--output=/no/such/folder/out.jsonl"], "cannot write --output=/no/such/folder/out.jsonl: No such file"),
        (["--output=/tmp"], "--output=/tmp is a folder"),
        (["--step=3"], "checkpoint '3': choose latest, all, or one of [2, 4]"),
        (["--step=all"], "--step=all: choose latest or one step"),
        (["--batch_size=0"], "batch_size 0 must be at least 1"),
        (["--max_new_tokens=0"], "max_new_tokens is 0; ask for 1 or more"),
        (["--temperature=-1"], "temperature -1.0 is negative"),
        (["--top_p=2"], "top_p 2.0 is not in (0, 1]"),
    ],
)
def test_a_wrong_wish_for_texts_is_one_sentence(arguments, says, trained, pairs):
    before = contents(trained)
    is_one_sentence(t5x_like("generate", trained, "--input", pairs, *arguments), says=says)
    assert contents(trained) == before


def test_a_text_beyond_the_learned_positions_is_refused_rather_than_scored_wrong(trained_decoder, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"inputs": "the cat " * 6, "targets": "sat on a mat " * 2}) + "\n")
    arguments = ["--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
    is_one_sentence(t5x_like("score", trained_decoder, *arguments), says="the model has no position for token 75")
    is_one_sentence(t5x_like("generate", trained_decoder, *arguments), says="the model has no position for token")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--split=test"], "has a split 'test'"),
        (["--steps=3"], "checkpoint '3'"),
        (["--max_batches=0"], "max_batches 0 must be at least 1"),
        (["--samples=-1"], "samples -1 must be 0 or more"),
    ],
)
def test_a_wrong_wish_for_an_evaluation_is_one_sentence_and_writes_nothing(arguments, says, run):
    before = contents(run)
    is_one_sentence(t5x_like("evaluate", run, *arguments), says=says)
    assert contents(run) == before


# ---- what libraries say


def test_prepare_and_train_write_no_line_that_is_not_ours(corpus, t5_gin, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def err(*arguments):
        command = [sys.executable, "-m", "t5x_like", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr.splitlines()

    tokenizer = tmp_path / "words.model"
    succeed("tokenizer", "train", "--corpus", corpus, "--output", tokenizer, "--kind", "bpe", "--vocab_size", "300")
    told = ["--corpus", corpus, "--tokenizer", tokenizer, "--output_dir", tmp_path / "data"]
    lines = err("prepare", "small_causal_lm", *told)
    assert lines and all(line.startswith("prepare: ") for line in lines), lines
    lines = err("train", f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}", "steps=1")
    ours = [line for line in lines if line.startswith(("Parameters", "This run"))]
    foreign = [line for line in lines if line.startswith(("WARNING", "I0", "W0", "E0", "[Gloo]")) or "arning:" in line]
    assert ours == [lines[0], ours[1]] and lines[-1] == "finished at step 1" and not foreign
