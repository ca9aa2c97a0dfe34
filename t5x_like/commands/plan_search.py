"""`t5x_like plan --search`: every choice compiled, with a bar, and the ones worth having with their lines."""

import argparse
import collections
import os
import pathlib
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from t5x_like.partitioning.placement import human_bytes
from t5x_like.planning import plan, roofline
from t5x_like.planning.search import REMATS, Choice, Found, choices, front
from t5x_like.reporting import page
from t5x_like.reporting.plots import Curve, curves_svg
from t5x_like.reporting.run_folder import Series


def search(
    console: Console,
    options: argparse.Namespace,
    run_of: Callable[[argparse.Namespace], dict],
    devices: list,
    kind: str,
    device: roofline.Device,
) -> None:
    own = run_of(options)
    model = own["model"].place.name
    rows = [int(number) for number in options.rows.split(",")] if options.rows else [own["data"].batch_size]
    tried = list(choices(len(devices), axes=options.axes.split(","), rows=rows))
    found, refused = [], collections.Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stderr = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("compiling", total=len(tried))
        for choice in tried:
            bar.update(task, description=str(choice))
            try:
                found.append(measured(choice, options, run_of, devices, device, model))
            except ValueError as error:
                refused[str(error).split(":")[0][:100]] += 1
            bar.advance(task)
    fitting = [one for one in found if one.peak < device.memory]
    best = front(fitting)
    console.print(table_of(best, kind, len(devices)))
    for number, one in enumerate(best, 1):
        print(f"\n# {number}: {one.choice}")
        print("\n".join(one.choice.lines(model)))
    too_large = len(found) - len(fitting)
    print(f"\n{len(tried)} choices: {len(fitting)} fit, {too_large} need more than {human_bytes(int(device.memory))}")
    for reason, count in refused.most_common():
        print(f"{count} refused: {reason}")
    if options.report:
        write_page(pathlib.Path(options.report), fitting, best, kind, model)


def measured(choice: Choice, options, run_of, devices: list, device: roofline.Device, model: str) -> Found:
    """One choice, compiled; ValueError where the configuration or the compiler refuses it."""
    bindings = [f"--gin.{line.replace(' = ', '=')}" for line in choice.lines(model)]
    changed = argparse.Namespace(**{**vars(options), "overrides": [*options.overrides, *bindings]})
    report = plan.plan(run_of(changed), devices)
    seconds = report.seconds(device)
    seconds = seconds._replace(compute=seconds.compute * REMATS[choice.remat])
    return Found(choice, report.peak, seconds.least, seconds.most, report.tokens)


def cells(one: Found) -> list[str]:
    times = f"{one.least * 1e3:,.1f} - {one.most * 1e3:,.1f}"
    return [str(one.choice), human_bytes(one.peak), times, f"{one.tokens / one.most:,.0f}"]


def table_of(best: list[Found], kind: str, count: int) -> Table:
    table = Table("", "choice", "peak", "ms a step", "tokens/s at least", title=f"Worth having on {count} x {kind}")
    for number, one in enumerate(best, 1):
        table.add_row(str(number), *cells(one))
    return table


def write_page(path: pathlib.Path, fitting: list[Found], best: list[Found], kind: str, model: str) -> None:
    """All choices that fit as dots, the front as a line, its lines to paste."""
    import numpy as np

    def curve(some: list[Found], color: int, style: str) -> Curve:
        some = sorted(some, key=lambda one: one.peak)
        memory = np.array([one.peak / 2**30 for one in some])
        return Curve(Series(memory, np.array([one.tokens / one.most for one in some])), color, style)

    svg = curves_svg("tokens a second over memory", [curve(best, 1, "points")], width=9.2, height=3.5, from_zero=True)
    head = ["", "choice", "peak", "ms a step", "tokens/s at least"]
    rows = [[str(number), *cells(one)] for number, one in enumerate(best, 1)]
    others = [cells(one) for one in sorted(fitting, key=lambda one: one.cost)]
    body = [
        page.element("h1", page.safe(f"What is worth having on {kind}")),
        page.figure("Tokens a second, at least, over GiB on a device", svg, f"{len(fitting)} choices fit"),
        page.section("Worth having", page.table(head, rows, num_text_columns=2)),
        *(
            page.details(f"{number}: {one.choice}", page.element("pre", page.safe("\n".join(one.choice.lines(model)))))
            for number, one in enumerate(best, 1)
        ),
        page.section("All that fit", page.table(head[1:], others)),
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(page.document(f"plan: {kind}", "\n".join(body)), "utf-8")
    temporary.replace(path)
