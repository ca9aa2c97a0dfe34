"""What a run folder says, read with patience: any piece may be absent, and the last line of a log may be torn.

config.gin  metrics.jsonl  timings.jsonl  summary.json  events.jsonl  samples.jsonl  evaluation/*.json
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_NAME = 60


class Series(NamedTuple):
    """Finite values of one metric, by rising step."""

    steps: np.ndarray
    values: np.ndarray


class Run(NamedTuple):
    """`metrics` and `throughput` have one row per step (a step done again after a resume counts once, as last written).
    `evaluations` rise by step. `skipped` counts lines that could not be read, per file.
    """

    name: str
    config: str
    metrics: list[dict[str, Any]]
    throughput: list[dict[str, Any]]
    summary: dict[str, Any]
    events: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    skipped: dict[str, int]


def read_run(folder: Path) -> Run:
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder {str(folder)!r}; give the folder that `train` wrote")
    skipped: dict[str, int] = {}

    def lines(name: str) -> list[dict[str, Any]]:
        rows, bad = parse_lines(read_text(folder / name))
        skipped.update({name: bad} if bad else {})
        return rows

    evaluations = [parse_object(read_text(path)) for path in sorted(folder.glob("evaluation/*.json"))]
    return Run(
        name=folder.resolve().name[:MAX_NAME],
        config=read_text(folder / "config.gin"),
        metrics=by_step(lines("metrics.jsonl")),
        throughput=by_step(lines("timings.jsonl")),
        summary=parse_object(read_text(folder / "summary.json")),
        events=lines("events.jsonl"),
        samples=lines("samples.jsonl"),
        evaluations=sorted((e for e in evaluations if isinstance(e.get("tasks"), dict)), key=checkpoint_step),
        skipped=skipped,
    )


def read_text(path: Path) -> str:
    """The text, or nothing where there is no such file. Bytes that are not UTF-8 become U+FFFD."""
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def parse_lines(text: str) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects, one a line, and how many lines were none. A torn last line is a write in progress, no error."""
    rows, bad = [], 0
    for line in text.split("\n"):
        row = parse_object(line)
        rows += [row] if row else []
        bad += not row and bool(line.strip())
    torn = not text.endswith("\n") and bool(text) and not parse_object(text.rsplit("\n", 1)[-1])
    return rows, bad - torn


def parse_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def by_step(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: dict[float, dict[str, Any]] = {}
    for row in rows:
        if is_number(row.get("step")):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def checkpoint_step(evaluation: dict[str, Any]) -> float:
    step = evaluation.get("checkpoint step", evaluation.get("checkpoint_step", evaluation.get("step")))
    return step if is_number(step) else math.inf


def series(rows: list[dict[str, Any]], key: str) -> Series:
    pairs = [(row["step"], row[key]) for row in rows if is_number(row.get(key))]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Series(np.asarray(steps, np.float64), np.asarray(values, np.float64))


def first_non_finite_step(rows: list[dict[str, Any]], key: str) -> int | None:
    """JSON has no NaN, so the log may hold it as a text such as "nan", or as null."""
    bad = [row["step"] for row in rows if key in row and not is_number(row[key])]
    return int(bad[0]) if bad else None


def evaluated_tasks(run: Run) -> list[str]:
    """Tasks with held-out numbers, in the order of their first appearance."""
    names: dict[str, None] = {}
    for row in run.metrics:
        for key in row:
            if key.startswith("eval/") and key.endswith("/loss"):
                names[key[len("eval/") : -len("/loss")]] = None
    for evaluation in run.evaluations:
        names |= dict.fromkeys(evaluation["tasks"])
    return list(names)


def held_out(run: Run, task: str, measure: str) -> Series:
    """A held-out measure over the steps, of the loop and of `evaluate` together."""
    points = dict(zip(*series(run.metrics, f"eval/{task}/{measure}"), strict=True))
    for evaluation in run.evaluations:
        result = evaluation["tasks"].get(task)
        step, value = checkpoint_step(evaluation), result.get(measure) if isinstance(result, dict) else None
        if is_number(value) and math.isfinite(step):
            points[float(step)] = value
    return Series(np.asarray(sorted(points)), np.asarray([points[step] for step in sorted(points)], np.float64))


def last(values: Series) -> float | None:
    return float(values.values[-1]) if len(values.values) else None


def token_shares(run: Run) -> dict[str, float]:
    """Share of each task in the training tokens that the metrics count as `tokens/<task>`."""
    totals: dict[str, float] = {}
    for row in run.metrics:
        for key, value in row.items():
            if key.startswith("tokens/") and is_number(value):
                totals[key.removeprefix("tokens/")] = totals.get(key.removeprefix("tokens/"), 0.0) + value
    whole = sum(totals.values())
    return {task: total / whole for task, total in totals.items()} if whole > 0 else {}


def config_values(config: str) -> dict[str, tuple[str, str]]:
    """Binding: (value as text, origin) of a resolved config, one binding a line."""
    found = {}
    for line in config.splitlines():
        name, equals, rest = line.partition(" = ")
        if equals and not line.startswith("#"):
            value, _, origin = rest.rpartition("  # ")
            found[name] = (value or rest, origin if value else "")
    return found
