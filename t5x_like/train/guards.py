"""What ends a run before its last step, and how: exit codes, numbers that are not finite, a process among peers."""

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping

DONE = 0
BAD_NUMBERS = 17  # do not retry: the same numbers come again
TRY_AGAIN = 75  # hung or preempted: the same command goes on from the last checkpoint (sysexits.h, EX_TEMPFAIL)

PARENT_POLL_SECONDS = 0.5


def require_finite(step: int, metrics: Mapping[str, float]) -> None:
    """Raises when a metric of `step` is NaN or infinite. Call it before that step's state is saved.

    Stopping is the policy: skipping updates until a count is reached, as optax.apply_if_finite does, applies the bad
    update in the end.
    """
    bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        listed = ", ".join(f"{name} is {value}" for name, value in bad.items())
        raise FloatingPointError(
            f"step {step}: {listed}; stopped before anything was saved over a good state. "
            "Lower the learning rate, add clipping, or look at the data of this step, then run the same command"
        )


def leave(code: int, *, num_processes: int) -> None:
    """Ends this process with `code`, without waiting for the others when there are any.

    A process that fails among several would wait 300 s at JAX's exit barrier, still sending heartbeats, while its peers
    wait in a collective. Gone at once, it is noticed within the heartbeat time.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if num_processes > 1 and code != DONE:
        os._exit(code)
    sys.exit(code)


def leave_on_uncaught_exception(num_processes: int) -> None:
    """In a run of several processes, an exception that nobody catches is printed and ends this process at once."""
    if num_processes == 1:
        return

    def hook(kind, error, trace):
        traceback.print_exception(kind, error, trace)
        leave(1, num_processes=num_processes)

    sys.excepthook = hook


def leave_on_error(num_processes: int) -> Callable[..., bool]:
    """An exit function for `contextlib.ExitStack`: among several processes, an error ends this one at once.

    Without it, closing the checkpoints would wait for peers that wait for this process.
    """

    def leave_now(kind, error, trace) -> bool:
        if error is not None and num_processes > 1:
            traceback.print_exception(kind, error, trace)
            leave(BAD_NUMBERS if isinstance(error, FloatingPointError) else 1, num_processes=num_processes)
        return False

    return leave_now


def follow_parent(parent_pid: int) -> None:
    """Makes this worker process end within a second of its parent, and leave Ctrl-C to it. First thing in a worker.

    A killed trainer would leave its data workers behind. The kernel's own death signal is no help: it comes when the
    thread that made the worker ends, and data libraries make workers in short-lived threads.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent_pid:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="follow_parent", daemon=True).start()
