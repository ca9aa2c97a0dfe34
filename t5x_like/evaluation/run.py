"""Evaluates checkpoints of a run on held-out text: MODEL_DIR/evaluation/<step>.json, and samples.jsonl of the newest.

{"step": 2000, "split": "validation", "tasks": {NAME: {"loss": nats per target, "perplexity", "accuracy", "tokens",
 "unigram_loss": of the yardstick that knows only frequencies, "bits_per_byte": of whole texts, without an encoder}}}
"""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator

import jax

from t5x_like.data.pipeline import Pipeline
from t5x_like.evaluation import load, samples, unigram
from t5x_like.evaluation.load import Loaded, Run
from t5x_like.metrics.held_out import HeldOut
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.partitioning import axis_rules
from t5x_like.partitioning.mesh import on_mesh
from t5x_like.train import host_rows, run_folder

UNIGRAM_BATCHES = 64


def evaluate(
    run: Run,
    *,
    steps: list[int],
    split: str = "validation",
    max_batches: int | None = None,
    num_samples: int = 8,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """One result per step, written as it is made. Steps that were evaluated before are done again."""
    check_counts(max_batches, num_samples)
    results, held_out, yardsticks = [], None, {}
    mesh = run.arguments["mesh"]() if "mesh" in run.arguments else load.make_mesh()
    for step in steps:
        loaded = load.load(run, step, mesh)
        if held_out is None:  # one program serves all steps
            held_out = measure(run, loaded, split, max_batches)
            yardsticks = {name: unigram_of(run.data, name, held_out, max_batches) for name in held_out.rows}
        tasks = {}
        for name, means in held_out(loaded.params).items():
            extra = {"perplexity": math.exp(min(means["loss"], 700.0)), "unigram_loss": yardsticks[name]}
            tasks[name] = means | extra | bits_per_byte(run.data, held_out.rows[name], means, split, max_batches)
            if jax.process_index() == 0:
                say(describe(step, name, tasks[name]))
        results.append({"step": step, "split": split, "tasks": tasks})
        write_result(run, results[-1])
    if num_samples and steps:
        write_samples(run, steps[-1], load.on_one_device(run, loaded), split, num_samples)
    return results


def describe(step: int, task: str, values: dict[str, float]) -> str:
    others = {name: value for name, value in values.items() if name not in ("loss", "tokens")}
    listed = ", ".join(f"{name} {value:,.4f}" for name, value in {"loss": values["loss"], **others}.items())
    return f"step {step:,} {task}: {listed} over {values['tokens']:,.0f} tokens"


def check_counts(max_batches: int | None, num_samples: int) -> None:
    if max_batches is not None and max_batches < 1:
        raise ValueError(f"max_batches {max_batches} must be at least 1")
    if num_samples < 0:
        raise ValueError(f"samples {num_samples} must be 0 or more")


def write_result(run: Run, result: dict) -> None:
    if jax.process_index() != 0:
        return
    folder = run.folder / "evaluation"
    folder.mkdir(exist_ok=True)
    run_folder.write_atomically(folder / f"{result['step']:08d}.json", json.dumps(result, indent=1))


def watch(run: Run, *, seconds: float = 10.0, done_step: int) -> Iterator[int]:
    """Sound steps as they appear, oldest first, until `done_step` was there."""
    checkpoints, seen = run.folder / "checkpoints", set()
    while done_step not in seen:
        new = [
            step
            for step in run_folder.checkpoint_steps(checkpoints)
            if step not in seen and not run_folder.inspect_step(checkpoints / str(step)).problems
        ]
        # The trainer deletes old steps meanwhile, so one that waited its turn may be gone.
        yield from (step for step in new if (checkpoints / str(step)).is_dir())
        seen.update(new)
        if not new:
            time.sleep(seconds)


def measure(run: Run, loaded: Loaded, split: str, max_batches: int | None) -> HeldOut:
    splits = {name: sorted(task.manifest["splits"]) for task, _ in run.data.tasks() for name in [task.name]}
    if not any(split in names for names in splits.values()):
        raise ValueError(f"no task of {run.data.mixture} has a split {split!r}: they have {splits}")
    sharding = axis_rules.batch_sharding(loaded.mesh, run.rules, run.data.batch_size)
    return HeldOut(
        run.data,
        split,
        objectives=OBJECTIVES,
        graphdef=loaded.graphdef,
        measure=on_mesh(loaded.mesh, run.loss.measure),
        rows_of_process=host_rows.rows_of_this_process(sharding, run.data.batch_size),
        to_devices=lambda batch: host_rows.to_devices(batch, sharding, run.data.batch_size),
        max_batches=max_batches,
    )


def unigram_of(data: Pipeline, task: str, held_out: HeldOut, max_batches: int | None) -> float:
    """Counts the targets of the task in about as much training text as says something about frequencies; the held-out
    rows are those that the model is measured on.
    """
    alone = dataclasses.replace(data, mixture=task).train_rows(OBJECTIVES)
    size = alone.plan.tasks[0].split.task.vocabulary.size
    trained = unigram.count_targets(itertools.islice(alone, UNIGRAM_BATCHES), size)
    rows = itertools.islice(held_out.rows[task].of_host(0, data.batch_size), max_batches)
    return unigram.unigram_loss(trained, unigram.count_targets(rows, size))


def bits_per_byte(data: Pipeline, rows, means: dict, split: str, max_batches: int | None) -> dict[str, float]:
    """Comparable across tokenizers; only where every token of the text is predicted (but the first of a stream)."""
    counts = rows.plan.tasks[0].split.counts
    all_predicted = means["tokens"] >= sum(counts["tokens"].values()) and "inputs" not in counts["tokens"]
    if "inputs" in data.lengths or max_batches is not None or not counts.get("bytes") or not all_predicted:
        return {}
    return {"bits_per_byte": means["loss"] * means["tokens"] / math.log(2) / counts["bytes"]}


def write_samples(run: Run, step: int, loaded: Loaded, split: str, count: int) -> None:
    """samples.jsonl: what the model of `step` makes of the first held-out examples of every task."""
    if jax.process_index() != 0:
        return
    lines = []
    for name, rows in measure(run, loaded, split, 1).rows.items():
        vocabulary = rows.plan.tasks[0].split.task.vocabulary
        for sample in samples.samples(loaded, rows, vocabulary, count):
            lines.append(json.dumps({"task": name, "step": step, **sample}, ensure_ascii=False))
    run_folder.write_atomically(run.folder / "samples.jsonl", "".join(line + "\n" for line in lines))
