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

from t5x_like import losses
from t5x_like.data.pipeline import Pipeline
from t5x_like.evaluation import load, samples, unigram
from t5x_like.evaluation.load import Loaded, Run
from t5x_like.metrics.held_out import HeldOut
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.partitioning import axis_rules
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
    results, yardsticks = [], None
    for step in steps:
        mesh = run.arguments["mesh"]() if "mesh" in run.arguments else load.make_mesh()
        loaded = load.load(run, step, mesh)
        held_out = measure(run, loaded, split, max_batches)
        if not held_out.rows:
            raise ValueError(f"no task of {run.data.mixture} has a split {split!r}: prepare one, or name another")
        yardsticks = yardsticks or {name: unigram_of(run.data, name, held_out) for name in held_out.rows}
        tasks = {}
        for name, means in held_out(loaded.params).items():
            extra = {"perplexity": math.exp(min(means["loss"], 700.0)), "unigram_loss": yardsticks[name]}
            tasks[name] = means | extra | bits_per_byte(run.data, held_out.rows[name], means, split, max_batches)
            say(f"step {step:,} {name}: " + ", ".join(f"{key} {value:,.4f}" for key, value in tasks[name].items()))
        results.append({"step": step, "split": split, "tasks": tasks})
        folder = run.folder / "evaluation"
        folder.mkdir(exist_ok=True)
        run_folder.write_atomically(folder / f"{step:08d}.json", json.dumps(results[-1], indent=1))
    if num_samples and steps:
        write_samples(run, steps[-1], split, num_samples)
    return results


def watch(run: Run, *, seconds: float = 10.0, done_step: int) -> Iterator[int]:
    """Steps as they appear, oldest first, until `done_step` was there."""
    seen: set[int] = set()
    while done_step not in seen:
        new = [step for step in run_folder.checkpoint_steps(run.folder / "checkpoints") if step not in seen]
        for step in new:
            if not run_folder.inspect_step(run.folder / "checkpoints" / str(step)).problems:
                seen.add(step)
                yield step
        time.sleep(seconds if not new else 0.0)


def measure(run: Run, loaded: Loaded, split: str, max_batches: int | None) -> HeldOut:
    sharding = axis_rules.batch_sharding(loaded.mesh, run.rules, run.data.batch_size)
    return HeldOut(
        run.data,
        split,
        objectives=OBJECTIVES,
        graphdef=loaded.graphdef,
        measure=losses.token_metrics,
        rows_of_process=host_rows.rows_of_this_process(sharding, run.data.batch_size),
        to_devices=lambda batch: host_rows.to_devices(batch, sharding, run.data.batch_size),
        max_batches=max_batches,
    )


def unigram_of(data: Pipeline, task: str, held_out: HeldOut) -> float:
    """Counts the targets of the task in about as much training text as says something about frequencies."""
    alone = dataclasses.replace(data, mixture=task).train_rows(OBJECTIVES)
    size = alone.plan.tasks[0].split.task.vocabulary.size
    trained = unigram.count_targets(itertools.islice(alone, UNIGRAM_BATCHES), size)
    rows = held_out.rows[task].of_host(0, data.batch_size)
    return unigram.unigram_loss(trained, unigram.count_targets(rows, size))


def bits_per_byte(data: Pipeline, rows, means: dict, split: str, max_batches: int | None) -> dict[str, float]:
    """Comparable across tokenizers; only where every token of the text is predicted."""
    num_bytes = rows.plan.tasks[0].split.task.manifest["splits"][split].get("bytes")
    if "inputs" in data.lengths or max_batches is not None or not num_bytes:
        return {}
    return {"bits_per_byte": means["loss"] * means["tokens"] / math.log(2) / num_bytes}


def write_samples(run: Run, step: int, split: str, count: int) -> None:
    """samples.jsonl: what the model of `step` makes of the first held-out examples of every task."""
    if jax.process_index() != 0:
        return
    loaded = load.load(run, step, load.one_device())
    lines = []
    for name, rows in measure(run, loaded, split, 1).rows.items():
        vocabulary = rows.plan.tasks[0].split.task.vocabulary
        for sample in samples.samples(loaded, rows, vocabulary, count):
            lines.append(json.dumps({"task": name, "step": step, **sample}, ensure_ascii=False))
    run_folder.write_atomically(run.folder / "samples.jsonl", "".join(line + "\n" for line in lines))
