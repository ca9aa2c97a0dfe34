"""SIGTERM and Ctrl-C: finish the step, save, exit; a second one exits now.

Alone, a process decides for itself. Among several, JAX carries the signal of one to all and finds a step that all can
still reach; it listens to SIGTERM itself, so here Ctrl-C is handed on as SIGTERM and SIGTERM is left alone.
"""

import os
import signal
import sys
import threading

from jax.experimental import multihost_utils


class StopSignals:
    """Listens from now on; made in the main thread. Ask `reached` once after every step, on every process."""

    def __init__(self, num_processes: int):
        self._among_several = num_processes > 1
        self._first: int | None = None
        self._reached = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Python runs handlers between bytecodes of the main thread, which may be an hour inside a compiler. The wake-up
        # pipe is written at once, and the thread below reads it.
        self._old_pipe = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        caught = [signal.SIGINT] if self._among_several else [signal.SIGINT, signal.SIGTERM]
        self._old_handlers = {number: signal.signal(number, lambda *_: None) for number in caught}
        self._thread = threading.Thread(target=self._listen, name="stop_signals", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while number := os.read(self._reader, 1)[0]:
            if number in self._old_handlers:
                self._received(number)

    def _received(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._first is not None:
            os.write(2, f"\n{name} again: exiting now, nothing more is saved\n".encode())
            os._exit(128 + number)
        os.write(2, f"\n{name}: finishing this step, then saving (once more: exit now)\n".encode())
        self._first = number
        if self._among_several:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's own handler tells the other processes

    def reached(self, step: int) -> bool:
        """True when `step` (just finished) is the one to save and stop at; the same answer on every process."""
        if self._among_several:
            self._reached = self._reached or multihost_utils.reached_preemption_sync_point(step)
        else:
            self._reached = self._first is not None
        return self._reached

    def close(self) -> None:
        """Gives the signals back to their former handlers."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_pipe)
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)


def resume_line(step: int) -> str:
    """What to print after the save."""
    return f"saved step {step}; run the same command to resume: {' '.join(sys.argv)}"
