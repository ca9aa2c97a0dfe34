"""Progress of `prepare` on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 10.0

# update(finished shards, tokens written by this run)
Update = Callable[[int, int], None]


@contextlib.contextmanager
def progress(title: str, *, done: int, total: int) -> Iterator[Update]:
    """Yields `update`; `done` of `total` shards were there already, so they do not enter the estimate."""
    started, printed = time.monotonic(), time.monotonic()
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed}/{task.total} shards  {task.fields[state]}"),
    )
    is_terminal = sys.stderr.isatty()
    bar = rich.progress.Progress(*columns, console=rich.console.Console(stderr=True), disable=not is_terminal)
    with bar:
        row = bar.add_task(title, total=total, completed=done, state="")

        def update(finished: int, tokens: int) -> None:
            nonlocal printed
            state = _state(time.monotonic() - started, finished - done, total - done, tokens)
            bar.update(row, completed=finished, state=state)
            if not is_terminal and time.monotonic() - printed > _SECONDS_BETWEEN_LINES:
                printed = time.monotonic()
                say(f"{title}: {finished}/{total} shards  {state}")

        yield update


def say(message: str) -> None:
    print(f"prepare: {message}", file=sys.stderr, flush=True)


def _state(seconds: float, finished: int, total: int, tokens: int) -> str:
    rate = f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"
    return f"{rate}, {seconds / finished * (total - finished):.0f} s left" if finished else rate
