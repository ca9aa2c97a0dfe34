"""A run that hangs must end: no progress within the limit of its phase prints every thread's stack and exits 75.

Heartbeats do not notice a process that sleeps, or waits for one that does: they come from another thread.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Mapping

from t5x_like.train import guards

LIMITS = {"compile": 3600.0, "step": 600.0, "save": 1800.0, "evaluate": 3600.0}  # seconds without progress
MOST_TICKS = 20  # per limit: how finely time is counted


class Watchdog:
    """Counts from now on, in phase `compile`. Daemon thread; `close` ends it."""

    def __init__(self, limits: Mapping[str, float] = LIMITS):
        bad = {name: seconds for name, seconds in limits.items() if not seconds > 0}
        if bad:
            raise ValueError(f"watchdog limits {bad} must be above 0 seconds; write float('inf') for no limit")
        self._limits = dict(limits)
        self._tick = min(10.0, min(self._limits.values()) / MOST_TICKS)
        self._progress = ("compile", 0)  # phase, number of reports; one tuple, so that it changes at once
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def progress(self, phase: str) -> None:
        """Something was finished, and `phase` begins (or goes on)."""
        if phase not in self._limits:
            raise ValueError(f"the watchdog has no limit for {phase!r}, only for {', '.join(self._limits)}")
        self._progress = (phase, self._progress[1] + 1)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        seen, idle, before = self._progress, 0.0, time.monotonic()
        while not self._closed.wait(self._tick):
            now = time.monotonic()
            # A process that was stopped (Ctrl-Z, SIGSTOP) did not hang: one wait counts for two ticks at most.
            idle = idle + min(now - before, 2 * self._tick) if self._progress == seen else 0.0
            seen, before = self._progress, now
            if idle > self._limits[seen[0]]:
                end(seen[0], idle)


def end(phase: str, idle: float) -> None:
    """Says where every thread stands and leaves, without waiting for anything."""
    os.write(2, f"\nno progress for {idle:.0f} s in phase {phase}: all stacks follow\n".encode())
    faulthandler.dump_traceback(file=2, all_threads=True)
    os.write(2, f"exit {guards.TRY_AGAIN}: the same command resumes from the last checkpoint\n".encode())
    os._exit(guards.TRY_AGAIN)
