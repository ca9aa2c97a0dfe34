"""Every command does its job on a tiny run."""

import argparse
import functools
import io
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like import launch, losses
from t5x_like.commands import doctor
from t5x_like.commands import options as shared
from t5x_like.decoding import prompts
from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import greedy
from t5x_like.evaluation import load
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.train import run_folder
from tests.commands.command_line import succeed, t5x_like


def test_every_command_explains_itself_without_jax():
    code = (
        "import contextlib, sys\nfrom t5x_like import launch\n"
        "for command in launch.COMMANDS:\n"
        "    for arguments in ([command, '--help'], [command, '-h']):\n"
        "        try:\n            launch.main(arguments)\n"
        "        except SystemExit as leaving:\n            assert not leaving.code, leaving.code\n"
        "launch.main([])\nprint(sorted({'jax', 'tensorflow', 'seqio', 'orbax', 'grain'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and not done.stderr
    for command in launch.COMMANDS:
        assert f"usage: t5x_like {command}" in done.stdout and f"  {command} " in done.stdout


# ---- train


def test_train_writes_a_run_folder_and_says_how_it_ends(trained):
    assert run_folder.checkpoint_steps(trained / "checkpoints") == [2, 4]
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert (trained / "config.gin").exists() and not (trained / "run.lock").exists()


def test_the_same_train_command_goes_on_where_it_was(t5_gin, tmp_path):
    first = succeed("train", f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}", "steps=2")
    assert "starting at step 0" in first.err and "finished at step 2" in first.err
    again = succeed("train", f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}")
    assert "resuming from step 2" in again.err and "finished at step 4" in again.err


def test_a_dry_run_compiles_and_writes_nothing(t5_gin, tmp_path):
    dry = succeed("train", f"--gin_file={t5_gin}", f"model_dir={tmp_path / 'run'}", "--dry_run")
    assert "nothing was written" in dry.err and "compiled in" in dry.err and not (tmp_path / "run").exists()


def test_overrides_of_both_kinds_reach_the_run_and_later_wins(t5_gin, tmp_path):
    overrides = ["seed=1", "--gin.train.seed=2", "seed=3", "adamw.b2=0.5", "--gin.train.steps=1", "log_every=7"]
    succeed("train", f"--gin_file={t5_gin}", *overrides, f"model_dir={tmp_path / 'run'}")
    config = (tmp_path / "run" / "config.gin").read_text()
    for line in ("train.seed = 3  # command line", "adamw.b2 = 0.5  # command line", "train.steps = 1  # command line"):
        assert line in config
    alone = succeed(
        "train", f"--gin_file={tmp_path / 'run' / 'config.gin'}", "steps=2"
    )  # restarts from that file alone
    assert "resuming from step 1" in alone.err


TASKS_OF_SOMEBODY = """
import functools, seqio
from t5x_like.objectives.span_corruption import SpanCorruption
pairs = [{{"inputs": f"what is {{k}} ?", "targets": f"{{k}} and {{k}}"}} for k in range(40)]
def documents(split, shuffle_files=False, seed=None):
    import tensorflow as tf
    return tf.data.Dataset.from_generator(lambda: pairs, output_signature=dict.fromkeys(
        ("inputs", "targets"), tf.TensorSpec((), tf.string)))
source = seqio.FunctionDataSource(documents, splits=["train", "validation"])
feature = seqio.Feature(seqio.ByteVocabulary(100), add_eos=True)
features = {{"inputs": feature, "targets": feature}}
seqio.TaskRegistry.add("outside_spans", source=source, output_features=features, preprocessors=[
    functools.partial(seqio.preprocessors.rekey, key_map={{"targets": "targets"}}), seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(), SpanCorruption()])
seqio.TaskRegistry.add("outside_pairs", source=source, output_features=features, preprocessors=[
    seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder(), seqio.preprocessors.append_eos_after_trim])
seqio.MixtureRegistry.add("{name}", ["outside_spans", "outside_pairs"], default_rate=1.0)
"""


def test_tasks_of_somebody_else_are_prepared_and_trained_on(t5_gin, tmp_path):
    (tmp_path / "tasks.py").write_text(TASKS_OF_SOMEBODY.format(name="outside_both"))
    arguments = [f"--gin_file={t5_gin}", f"--module={tmp_path / 'tasks.py'}", "Pipeline.mixture=outside_both"]
    arguments += [f"Pipeline.directory={tmp_path / 'data'}", f"model_dir={tmp_path / 'run'}", "steps=2"]
    assert "finished at step 2" in succeed("train", *arguments).err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["data"]
    assert "outside_pairs 50% (Supervised" in summary and "outside_spans 50% (SpanCorruption" in summary
    manifest = json.loads((tmp_path / "data" / "outside_pairs" / "task.json").read_text())
    assert manifest["objective"]["name"] == "Supervised" and manifest["splits"]["train"]["examples"] == 40


# ---- evaluate


def result(run, step):
    return json.loads((run / "evaluation" / f"{step:08d}.json").read_text())


def test_evaluate_takes_the_latest_all_or_one_checkpoint(run):
    assert "step 4 small_prefix_lm: loss" in succeed("evaluate", run, "--samples=2").out
    assert [path.name for path in (run / "evaluation").iterdir()] == ["00000004.json"]
    assert len((run / "samples.jsonl").read_text().splitlines()) == 4
    succeed("evaluate", run, "--steps=2", "--samples=0", "--max_batches=1")
    assert result(run, 2)["tasks"]["small_prefix_lm"]["tokens"] <= result(run, 4)["tasks"]["small_prefix_lm"]["tokens"]
    succeed("evaluate", run, "--steps=all", "--samples=0")
    assert result(run, 2)["tasks"].keys() == {"small_span_corruption", "small_prefix_lm"}
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    for task, values in result(run, 4)["tasks"].items():  # what the run measured itself at its last step
        assert values["loss"] == pytest.approx(logged[f"eval/{task}/loss"], rel=1e-5)
        assert values["perplexity"] == pytest.approx(math.exp(values["loss"]))


def test_watching_a_finished_run_evaluates_what_is_there_and_ends(run):
    watched = succeed("evaluate", run, "--watch", "--samples=0", "--max_batches=1")
    assert [line.split()[1] for line in watched.out.splitlines()] == ["2", "2", "4", "4"]
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == ["00000002.json", "00000004.json"]


def test_bits_per_byte_are_those_of_the_whole_held_out_text(trained_decoder, data):
    succeed("evaluate", trained_decoder, "--samples=1")
    values = result(trained_decoder, 4)["tasks"]["small_causal_lm"]
    held_out = json.loads((data / "small_causal_lm" / "task.json").read_text())["splits"]["validation"]
    assert values["tokens"] == held_out["tokens"]["targets"] + held_out["documents"]  # every byte, and every EOS
    assert values["bits_per_byte"] == pytest.approx(values["loss"] * values["tokens"] / np.log(2) / held_out["bytes"])


# ---- score and generate


def run_of(folder):
    options = argparse.Namespace(gin_search_paths="", overrides=[], allow_imports=[])
    return shared.open_run(options, str(folder))


def model_of(folder):
    """The model of a run's last step, and its vocabulary."""
    run = run_of(folder)
    return load.load(run, 4, load.one_device()).model(), run.data.tasks()[0][0].vocabulary


def by_hand(folder, inputs, targets):
    """Minus the sum of the token losses of one unpadded row."""
    model, vocabulary = model_of(folder)
    special = vocabulary.special
    given, wanted = vocabulary.encode(inputs), [*vocabulary.encode(targets), special.eos]
    if isinstance(model, EncoderDecoder):
        row = prompts.with_targets(prompts.encoder_decoder_prompt([[*given, special.eos]], special.pad), [wanted], 0)
        skipped = 0
    else:
        row = prompts.decoder_prompt([[special.pad, *given, *wanted[:-1]]], [1])
        wanted, skipped = [*given, *wanted], len(given)
    log_p = jax.jit(lambda row: jax.nn.log_softmax(model(row)[0]))(row)
    return sum(float(log_p[place, token]) for place, token in enumerate(wanted) if place >= skipped)


def test_a_score_is_minus_the_sum_of_the_token_losses(trained, trained_decoder, pairs):
    for folder in (trained, trained_decoder):
        rows = [json.loads(line) for line in succeed("score", folder, "--input", pairs).out.splitlines()]
        assert [row["inputs"] for row in rows] == ["the cat", "a", "the dog ran to"]
        assert [row["tokens"] for row in rows] == [7, 24, 1]
        for row in rows[:1]:
            assert row["log_likelihood"] == pytest.approx(by_hand(folder, row["inputs"], row["targets"]), rel=1e-4)


def test_the_batch_size_changes_no_score_and_a_file_appears_whole(trained, pairs, tmp_path):
    eight = [json.loads(line) for line in succeed("score", trained, "--input", pairs).out.splitlines()]
    output = tmp_path / "out.jsonl"
    assert not succeed("score", trained, "--input", pairs, "--batch_size=2", "--output", output).out
    two = [json.loads(line) for line in output.read_text().splitlines()]
    for one, other in zip(eight, two, strict=True):
        assert one == other | {"log_likelihood": pytest.approx(other["log_likelihood"], rel=1e-5)}
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl", "out.jsonl"}


def test_greedy_generation_is_that_of_the_model_alone(trained, trained_decoder, monkeypatch):
    for folder in (trained, trained_decoder):
        line = json.dumps({"inputs": "the cat", "id": 5}) + "\n\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
        row = json.loads(succeed("generate", folder, "--input=-", "--max_new_tokens=8", "--step=4").out)
        model, vocabulary = model_of(folder)
        special, given = vocabulary.special, vocabulary.encode("the cat")
        if folder == trained:
            prompt = prompts.encoder_decoder_prompt([[*given, special.eos]], special.pad)
        else:
            prompt = prompts.decoder_prompt([[special.pad, *given]], [1])
        settings = {"max_new_tokens": 8, "sample": greedy, "eos_id": special.eos, "pad_id": special.pad}
        (ids,) = np.asarray(jax.jit(functools.partial(generate, model, key=jax.random.key(0), **settings))(prompt))
        assert row == {"inputs": "the cat", "id": 5, "prediction": vocabulary.decode(ids.tolist())}


# ---- looking at a run


def test_inspect_and_report_show_the_run(run, tmp_path):
    shown = succeed("inspect", run).out
    assert shown.count("sound") == 2 and "step         4" in shown and "nobody is writing here" in shown
    done = succeed("report", run, "--output", tmp_path / "page.html")
    assert "<svg" in (tmp_path / "page.html").read_text() or "<img" in (tmp_path / "page.html").read_text()
    assert "step 4" in done.out


def test_verify_exits_with_1_when_a_bit_has_flipped(run):
    assert t5x_like("verify", run).code == 0
    largest = max((run / "checkpoints" / "4").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    outcome = t5x_like("verify", run)
    assert outcome.code == 1 and "DAMAGED" in outcome.out and "differs from what was written" in outcome.out


# ---- before a run


def test_a_tokenizer_is_trained_and_looked_at(corpus, tmp_path):
    for name, size in (("words.model", 300), ("pieces.json", 280)):
        arguments = ["--corpus", corpus, "--output", tmp_path / name, f"--vocab_size={size}", "--kind=bpe"]
        succeed("tokenizer", "train", *arguments)
        shown = succeed("tokenizer", "inspect", tmp_path / name, "--text", "the cat sat").out
        assert "100 sentinels" in shown and "tokens" in shown and "round trip exact" in shown


def test_a_tokenizer_is_balanced_over_languages_and_its_report_tells_them_apart(tmp_path):
    rows = [{"text": f"the cat sat on mat {k} and looked", "language": "en"} for k in range(200)]
    rows += [{"text": f"猫坐在垫子上看着我们 {k}", "language": "zh"} for k in range(20)]
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "a.model"
    arguments = ["--corpus", lines, "--output", output, "--vocab_size=330", "--kind=bpe", "--by=language"]
    told = succeed("tokenizer", "train", *arguments, "--chinese_words", "--split_digits", "--max_characters=1200")
    assert "zh: 2" in told.err and "en: 6" in told.err  # both in what is used of them
    shown = succeed("tokenizer", "report", output, "--corpus", lines, "--by=language").out
    assert "100.0%" in shown and "tokens / word" in shown
    assert [line.split()[1] for line in shown.splitlines() if "200" in line and " en " in line] == ["en"]
    wordpiece = ["--corpus", lines, "--output", tmp_path / "b.json", "--vocab_size=120", "--kind=wordpiece"]
    succeed("tokenizer", "train", *wordpiece)
    assert "cat" in succeed("tokenizer", "inspect", tmp_path / "b.json", "--text", "the cat").out
    wrong = t5x_like("tokenizer", "report", output, "--corpus", lines, "--by=lang")
    assert wrong.code == 2 and "--by=lang: no document of" in wrong.err
    wrong = t5x_like("tokenizer", "train", *arguments[:-2], "--kind=wordpiece")
    assert wrong.code == 2 and "a .json file holds" in wrong.err


def test_tasks_are_listed_shown_made_and_checked(corpus, tmp_path):
    lines = tmp_path / "some.jsonl"
    lines.write_text(
        "".join(
            json.dumps({"text": f"{path.read_text()} {k}"}) + "\n"
            for path in sorted(corpus.iterdir())
            for k in range(4)
        )
    )
    assert "python_stdlib_denoising" in succeed("tasks", "list").out
    made = succeed("tasks", "new", "some_texts", "--from", lines, "--folder", tmp_path).out
    module = f"--module={tmp_path / 'some_texts.py'}"
    assert module in made and len((tmp_path / "some_texts.py").read_text().splitlines()) < 30
    shown = succeed("tasks", "show", "some_texts", module, "--n=1").out
    assert "seen" in shown and "predicted" in shown and "<extra_id_0>" in shown
    checked = t5x_like("tasks", "check", "some_texts", module)
    assert checked.code == 0 and "tokens/s" in checked.out
    short = t5x_like("tasks", "check", "some_texts", module, "--inputs=512", "--targets=20")
    assert short.code == 1 and "problem: some_texts: lengths" in short.out


def test_doctor_sees_what_this_machine_has(monkeypatch):
    monkeypatch.setattr(doctor, "check_processes", lambda: iter(()))  # tests/train/test_processes.py does that part
    done = succeed("doctor")
    assert "this machine can train" in done.out and "PROBLEM" not in done.out and f"jax {jax.__version__}" in done.out


def test_the_losses_that_evaluate_reports_are_cross_entropy(trained):
    """The token losses, summed by hand over the held-out rows of one task, padding left out."""
    (model, _), run = model_of(trained), run_of(trained)
    (task,) = [task for task, _ in run.data.tasks() if task.name == "small_span_corruption"]
    forward, total, weight = jax.jit(lambda batch: model(batch)), 0.0, 0.0
    for batch in run.data.held_out_rows(task, "validation", OBJECTIVES):
        loss_BL = losses.token_cross_entropy(forward(batch), jnp.asarray(batch.targets))
        total += float((loss_BL * batch.loss_weights).sum())
        weight += float(batch.loss_weights.sum())
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["eval/small_span_corruption/loss"] == pytest.approx(total / weight, rel=1e-5)
