"""What a person sees while a run works: a bar in a terminal, a line now and then in a log file."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from t5x_like.metrics.throughput import human_seconds

SECONDS_BETWEEN_LINES = 10.0


class RunProgress:
    """Shows step, loss, speed and time left; `say` prints a line above the bar."""

    def __init__(self, console: Console, *, first_step: int, steps: int):
        self._console, self._steps = console, steps
        self._last_line = time.monotonic()
        self._bar = None
        if console.is_terminal and not console.quiet:
            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("training", total=steps, completed=first_step, text="compiling")
            self._bar.start()

    def step(self, step: int, metrics: dict[str, float], rates: dict[str, float], seconds_left: float | None) -> None:
        text = f"loss {metrics['loss']:.4f}"
        if rates:
            text += f"  {rates['tokens_per_second']:,.0f} tokens/s  {human_seconds(seconds_left)} left"
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        elif step == self._steps or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"step {step:,}/{self._steps:,}  {text}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
