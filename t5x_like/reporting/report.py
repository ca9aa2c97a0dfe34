"""A run, or several compared, as one HTML file: what was learned, the curves, samples, events, and the config.

Every piece of a run folder may be absent, so a run may be looked at while it goes on. The file needs no network.
"""

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t5x_like.reporting.page import Html, details, document, element, figure, legend, safe, section, table
from t5x_like.reporting.plots import Curve, Level, curves_svg, short
from t5x_like.reporting.run_folder import (
    Run,
    Series,
    checkpoint_step,
    config_values,
    evaluated_tasks,
    first_non_finite_step,
    held_out,
    is_number,
    last,
    read_run,
    series,
    token_shares,
)
from t5x_like.reporting.samples import sample_cards

WIDE = {"width": 9.2, "height": 3.5}  # inches, at which the text of a figure has the size of the page's captions
NARROW = {"width": 4.5, "height": 2.3}
DEFAULT = "default"


class Learned(NamedTuple):
    """Held-out losses in nats per token, means over `tasks` weighted by their held-out tokens where those are known."""

    tasks: tuple[str, ...]
    first: float
    first_step: int
    last: float
    last_step: int
    unigram: float | None


def write_report(run_folders: Sequence[str | Path], output: str | Path) -> Path:
    """Writes the report of one run, or the comparison of several, and returns its path."""
    if not run_folders:
        raise ValueError("no run folder given; a report is of one run or of several")
    runs = [read_run(Path(folder)) for folder in run_folders]
    runs = distinguished(runs)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    page = document(title, one_run(runs[0]) if len(runs) == 1 else several_runs(runs))
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    unfinished.write_text(page, "utf-8")
    unfinished.replace(output)  # somebody may be reading the report of an hour ago
    return output


def distinguished(runs: list[Run]) -> list[Run]:
    """Runs whose folders have the same name get a number."""
    names = [run.name for run in runs]
    return [
        run._replace(name=f"{run.name} ({i + 1})") if names.count(run.name) > 1 else run for i, run in enumerate(runs)
    ]


# One run


def one_run(run: Run) -> str:
    return "\n".join(
        [
            element("h1", safe(run.name)),
            element("p", safe(headline(run)), class_="headline"),
            warnings(run),
            tiles(run),
            section("Curves", loss_figure(run), small_figures([run])),
            section("Held-out tasks", task_table(run)),
            section("Samples", sample_cards(run.samples)),
            section("Mixture", shares(run)),
            section("Set-up", summary_table(run)),
            section("Events", event_table(run)),
            section("Configuration", config_section(run)),
        ]
    )


def learned(run: Run) -> Learned | None:
    """None where fewer than two held-out losses of one task are known."""
    rows = []
    for task in evaluated_tasks(run):
        losses = held_out(run, task, "loss")
        if len(losses.steps) > 1:
            rows.append((task, losses, last(held_out(run, task, "unigram_loss")), last(held_out(run, task, "tokens"))))
    if not rows:
        return None
    tasks, losses, unigrams, tokens = zip(*rows, strict=True)
    weights = None if None in tokens or not sum(tokens) else tokens
    mean: Callable = lambda values: float(np.average(values, weights=weights))  # noqa: E731
    return Learned(
        tasks,
        mean([loss.values[0] for loss in losses]),
        int(min(loss.steps[0] for loss in losses)),
        mean([loss.values[-1] for loss in losses]),
        int(max(loss.steps[-1] for loss in losses)),
        None if None in unigrams else mean(unigrams),
    )


def headline(run: Run) -> str:
    """What was learned, in one or two sentences."""
    result = learned(run)
    train = series(run.metrics, "loss")
    if result is None and len(train.steps) < 2:
        return "Nothing has been measured yet."
    if result is None:
        start, end = train.values[0], float(np.mean(train.values[-20:]))
        return (
            f"Training loss went from {start:.3f} to {end:.3f} in {int(train.steps[-1]):,} steps; no held-out loss yet."
        )
    what = f"of {result.tasks[0]}" if len(result.tasks) == 1 else f"(mean of {len(result.tasks)} tasks)"
    verb = "fell" if result.last < result.first else "rose"
    text = (
        f"Held-out loss {what} {verb} from {result.first:.3f} at step {result.first_step:,} to {result.last:.3f} nats "
        f"per token at step {result.last_step:,}."
    )
    if result.unigram is None:
        return text
    gap = result.unigram - result.last
    return text + (
        f" A unigram model has {result.unigram:.3f}: the run is {gap:.3f} better."
        if gap > 0
        else f" A unigram model has {result.unigram:.3f}: the run is not yet better than that."
    )


def warnings(run: Run) -> Html:
    found = []
    if (step := first_non_finite_step(run.metrics, "loss")) is not None:
        found.append(f"The training loss was not finite at step {step:,}.")
    for name, count in run.skipped.items():
        found.append(
            f"{count:,} unreadable line{'s' * (count > 1)} of {name} {'were' if count > 1 else 'was'} skipped."
        )
    return Html("".join(element("p", safe(text), class_="warning") for text in found))


def tiles(run: Run) -> Html:
    result = learned(run)
    speed = series(run.throughput, "tokens_per_second").values
    steps = [row["step"] for row in run.metrics]
    facts = {
        "steps done": f"{int(steps[-1]):,}" if steps else None,
        "held-out loss": f"{result.last:.3f}" if result else None,
        "perplexity": f"{math.exp(min(result.last, 700)):,.1f}" if result else None,
        "unigram baseline": f"{result.unigram:.3f}" if result and result.unigram is not None else None,
        "tokens / s": f"{np.median(speed):,.0f}" if len(speed) else None,
        "parameters": run.summary.get("parameters"),
    }
    items = (element("div", element("dt", safe(k)) + element("dd", safe(v))) for k, v in facts.items() if v is not None)
    return element("dl", "".join(items), class_="tiles")


def loss_figure(run: Run) -> Html:
    """Training loss, and for each task the held-out loss and its unigram baseline."""
    train = series(run.metrics, "loss")
    curves, levels, entries = [], [], []
    if len(train.steps):
        curves.append(Curve(train, 7, "noisy"))
        entries.append(("training", 7, "line"))
    for color, task in enumerate(evaluated_tasks(run)):
        losses = held_out(run, task, "loss")
        if len(losses.steps):
            curves.append(Curve(losses, color, "points"))
            entries.append((f"held out: {task}", color, "line"))
        if (unigram := last(held_out(run, task, "unigram_loss"))) is not None:
            levels.append(Level(unigram, color))
            entries.append((f"unigram model: {task}", color, "dotted"))
    if not curves:
        return Html("")
    svg = curves_svg("loss over training steps", curves, levels=levels, from_zero=False, **WIDE)
    return figure("Loss", svg, "nats per token, over training steps", keys=legend(entries))


def small_figures(runs: list[Run]) -> Html:
    """The other curves, one colour per run."""
    found = []
    for title, note, of_throughput, key, from_zero in (
        ("Accuracy", "share of targets, training", False, "accuracy", True),
        ("Learning rate", "", False, "learning_rate", True),
        ("Gradient norm", "before clipping", False, "grad_norm", True),
        ("Tokens per second", "", True, "tokens_per_second", True),
        ("Waiting for data", "share of the time", True, "data_wait_share", True),
    ):
        kind = "line" if key == "learning_rate" else "noisy"
        every = [series(run.throughput if of_throughput else run.metrics, key) for run in runs]
        curves = [Curve(points, color, kind) for color, points in enumerate(every) if len(points.steps)]
        if curves:
            svg = curves_svg(f"{title.lower()} over training steps", curves, from_zero=from_zero, **NARROW)
            found.append(figure(title, svg, note))
    return element("div", "".join(found), class_="grid") if found else Html("")


def task_table(run: Run) -> Html:
    head = ["task", "loss at start", "loss at end", "unigram", "perplexity", "accuracy", "bits / byte", "tokens"]
    rows = []
    for task in evaluated_tasks(run):
        losses = held_out(run, task, "loss")
        end = last(losses)
        perplexity = last(held_out(run, task, "perplexity")) or (math.exp(min(end, 700)) if end is not None else None)
        others = [last(held_out(run, task, key)) for key in ("accuracy", "bits_per_byte", "tokens")]
        first = float(losses.values[0]) if len(losses.values) > 1 else None
        unigram = last(held_out(run, task, "unigram_loss"))
        numbers = [*map(decimals(3), (first, end, unigram)), decimals(1)(perplexity)]
        rows.append([task, *numbers, decimals(3)(others[0]), decimals(3)(others[1]), decimals(0)(others[2])])
    steps = [
        checkpoint_step(evaluation) for evaluation in run.evaluations if math.isfinite(checkpoint_step(evaluation))
    ]
    of = f"Last evaluated checkpoint: step {int(steps[-1]):,}." if steps else ""
    return Html(table(head, rows) + element("p", safe(of), class_="soft")) if rows else Html("")


def decimals(count: int) -> Callable[[float | None], str]:
    return lambda value: "" if value is None else f"{value:,.{count}f}"


def shares(run: Run) -> Html:
    found = token_shares(run)
    if not found:
        return Html("")
    bars = "".join(
        element("div", style=f"flex: {share:.4f}; background: var(--series{i % 8})")
        for i, share in enumerate(found.values())
    )
    entries = [(f"{task} {share:.1%}", i, "line") for i, (task, share) in enumerate(found.items())]
    note = element("p", "Share of each task in the training tokens.", class_="soft")
    return Html(note + element("div", bars, class_="shares") + legend(entries))


def summary_table(run: Run) -> Html:
    return table(["", ""], run.summary.items(), num_text_columns=2) if run.summary else Html("")


def event_table(run: Run) -> Html:
    rows = [[clock(e.get("time")), e.get("event", ""), e.get("text", "")] for e in run.events]
    return table(["time (UTC)", "event", ""], rows, num_text_columns=3) if rows else Html("")


def clock(moment: Any) -> str:
    """Seconds since 1970, or ISO 8601, as a date; any other text as it stands."""
    if not is_number(moment):
        return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\+00:00$", r"\1 \2", str(moment or ""))
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
    except (OverflowError, OSError, ValueError):  # a number that is no date of this machine
        return str(moment)


def config_section(run: Run) -> Html:
    if not run.config:
        return Html("")
    values = config_values(run.config)
    changed = [[name, value, origin] for name, (value, origin) in values.items() if origin != DEFAULT]
    lines = []
    for line in run.config.splitlines():
        code, mark, origin = line.rpartition("  # ")
        lines.append(safe(code) + element("span", safe(mark + origin), class_="origin") if mark else safe(line))
    whole = element("pre", "\n".join(lines))
    note = f"{len(changed)} of {len(values)} values are not the default."
    return Html(
        element("p", safe(note), class_="soft")
        + details("Values that are not the default", table(["name", "value", "set at"], changed, num_text_columns=3))
        + details("The whole configuration; alone it restarts the run", whole)
    )


# Several runs


def several_runs(runs: list[Run]) -> str:
    return "\n".join(
        [
            element("h1", safe(f"{len(runs)} runs compared")),
            element("p", safe(best(runs)), class_="headline"),
            *(warnings(run._replace(skipped={f"{run.name}/{k}": n for k, n in run.skipped.items()})) for run in runs),
            result_table(runs),
            section("Curves", overlay(runs), small_figures(runs)),
            section("Held-out tasks", *(details_open(run, task_table(run)) for run in runs)),
            section("Differences in configuration", config_differences(runs)),
            section("Differences in set-up", summary_differences(runs)),
            section("Samples", *(details(run.name, sample_cards(run.samples)) for run in runs if run.samples)),
            section("Configurations", *(details(run.name, config_section(run)) for run in runs if run.config)),
        ]
    )


def details_open(run: Run, content: Html) -> Html:
    return Html(element("h3", safe(run.name)) + content) if content else Html("")


def best(runs: list[Run]) -> str:
    ends = {run.name: result.last for run in runs if (result := learned(run))}
    if len(ends) < 2:
        return "Fewer than two of the runs have held-out losses at two steps, so none is named the better one."
    first, second = sorted(ends, key=lambda name: ends[name])[:2]
    gap = ends[second] - ends[first]
    return f"{first} has the lowest held-out loss, {ends[first]:.3f} nats per token, {gap:.3f} below {second}."


def result_table(runs: list[Run]) -> Html:
    rows = []
    for run in runs:
        result, train = learned(run), series(run.metrics, "loss")
        speed = series(run.throughput, "tokens_per_second").values
        held = [decimals(3)(v) for v in ((result.first, result.last, result.unigram) if result else (None,) * 3)]
        end = float(np.mean(train.values[-20:])) if len(train.values) else None
        median = float(np.median(speed)) if len(speed) else None
        done = f"{int(run.metrics[-1]['step']):,}" if run.metrics else ""
        rows.append([run.name, done, decimals(3)(end), *held, decimals(0)(median)])
    head = ["run", "steps", "training loss", "held out, start", "held out, end", "unigram", "tokens / s"]
    return table(head, rows)


def overlay(runs: list[Run]) -> Html:
    """One colour per run: training loss faint, held-out loss (mean over tasks where they share steps) with dots."""
    train = [Curve(series(run.metrics, "loss"), color, "noisy") for color, run in enumerate(runs)]
    held = [Curve(mean_held_out(run), color, "points") for color, run in enumerate(runs)]
    keys = legend((run.name, color, "line") for color, run in enumerate(runs))
    found = []
    for title, curves in (("Held-out loss", held), ("Training loss", train)):
        curves = [curve for curve in curves if len(curve.series.steps)]
        if curves:
            svg = curves_svg(f"{title.lower()} over training steps", curves, from_zero=False, **WIDE)
            found.append(figure(title, svg, "nats per token, over training steps", keys=keys))
    return Html("".join(element("div", one, class_="grid") for one in found))


def mean_held_out(run: Run) -> Series:
    """The plain mean over tasks, at the steps where all of them have a loss."""
    every = [dict(zip(*held_out(run, task, "loss"), strict=True)) for task in evaluated_tasks(run)]
    every = [points for points in every if points]
    steps = sorted(set.intersection(*map(set, every))) if every else []
    return Series(np.asarray(steps), np.asarray([np.mean([points[step] for points in every]) for step in steps]))


def config_differences(runs: list[Run]) -> Html:
    values = [{name: value for name, (value, _) in config_values(run.config).items()} for run in runs]
    return differences(runs, values, "name")


def summary_differences(runs: list[Run]) -> Html:
    return differences(
        runs, [{k: short(v) if is_number(v) else str(v) for k, v in r.summary.items()} for r in runs], ""
    )


def differences(runs: list[Run], values: list[dict[str, str]], head: str) -> Html:
    """A row for each name whose value is not the same in all runs."""
    names = dict.fromkeys(name for one in values for name in one)
    rows = [[name, *(one.get(name, "—") for one in values)] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not any(values):
        return Html("")
    if not rows:
        return element("p", "None.", class_="soft")
    return table([head, *(run.name for run in runs)], rows, num_text_columns=len(runs) + 1)
