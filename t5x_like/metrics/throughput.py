"""Tokens per second, time left, and the share of the time that was spent waiting for data."""

import collections
import time
from collections.abc import Callable
from typing import NamedTuple


class Mark(NamedTuple):
    """The moment when a step was finished, and what it took."""

    seconds: float
    tokens: float
    waited: float


class Throughput:
    """Measured over the last `window` steps. Time comes from a clock that never jumps.

    The first step only starts the clock, because it compiles.
    """

    def __init__(self, window: int = 50, clock: Callable[[], float] = time.monotonic):
        if window < 1:
            raise ValueError(f"window {window} must be at least 1 step")
        self._clock = clock
        self._marks: collections.deque[Mark] = collections.deque(maxlen=window + 1)

    def step(self, tokens: float, waited: float) -> None:
        """A step was finished: its tokens in the whole mesh, and the seconds it waited for its batch."""
        self._marks.append(Mark(self._clock(), tokens, waited))

    def restart(self) -> None:
        """What follows a pause (evaluation, a save that waits) is measured afresh."""
        self._marks.clear()

    def elapsed(self) -> float:
        """Seconds that the window spans; 0 before two steps were finished."""
        return self._marks[-1].seconds - self._marks[0].seconds if len(self._marks) > 1 else 0.0

    def rates(self) -> dict[str, float]:
        """tokens_per_second, seconds_per_step, data_wait_share (0 to 1); empty before two steps were finished."""
        elapsed = self.elapsed()
        if elapsed <= 0.0:
            return {}
        _, tokens, waited = zip(*self._marks, strict=True)  # the first one only began the window
        return {
            "tokens_per_second": sum(tokens[1:]) / elapsed,
            "seconds_per_step": elapsed / (len(tokens) - 1),
            "data_wait_share": min(1.0, sum(waited[1:]) / elapsed),
        }

    def seconds_left(self, steps_left: float) -> float | None:
        """At the present speed; None before there is one."""
        elapsed = self.elapsed()
        return steps_left * elapsed / (len(self._marks) - 1) if elapsed > 0.0 else None


def human_seconds(seconds: float | None) -> str:
    """3725 -> '1h02m'; unknown -> '?'."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
