"""Real processes for tests: a script alone, or as two processes of one JAX run over loopback."""

import contextlib
import pathlib
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).parents[2]


@contextlib.contextmanager
def running(script: str, *arguments, num_processes: int = 1):
    """Starts the processes, gives the list of them, and leaves none behind.

    `script` sees sys.argv[1:] = arguments, then for two processes also the coordinator and the process id.
    """
    tails = [[]]
    if num_processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        tails = [[coordinator, str(process)] for process in range(num_processes)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-u", "-c", script, *map(str, arguments), *tail],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for tail in tails
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def wait_for_line(process: subprocess.Popen, text: str) -> str:
    """The next line of its output that contains `text`."""
    for line in process.stdout:
        if text in line:
            return line.strip()
    raise AssertionError(f"{text!r} was never printed; exit {process.wait()}:\n{process.stderr.read()[-3000:]}")


def outcome(process: subprocess.Popen, seconds: float = 60.0) -> tuple[int, str, str]:
    """Exit code, remaining output and errors, when it has ended by itself."""
    too_late = threading.Timer(seconds, process.kill)
    too_late.start()
    # Not communicate(): it would lose what wait_for_line has read ahead. Errors fit into their pipe.
    output, errors = process.stdout.read(), process.stderr.read()
    code = process.wait()
    too_late.cancel()
    return code, output, errors


def wait_until(condition, seconds: float = 20.0) -> None:
    """Returns when the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
