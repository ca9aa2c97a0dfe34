"""`t5x_like doctor`: can this machine train?"""

import importlib.metadata
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys

from t5x_like.commands import options as shared

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array-record", "gin-config", "numpy")
TASK_LIBRARIES = ("seqio", "tensorflow", "tensorflow-text")
LOW_DISK_BYTES = 5 * 10**9
LOOPBACK_SECONDS = 120

# Each of two processes adds up a number over both; what they print must agree.
_PEER = """
import sys, jax
from t5x_like.train.distributed import start_distributed
jax.config.update("jax_platforms", "cpu")
start_distributed(coordinator=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from jax.experimental import multihost_utils
print(int(multihost_utils.process_allgather(jax.numpy.int32(jax.process_index() + 1)).sum()))
"""


def main(arguments: list[str]) -> int:
    parser = shared.parser_for(
        "doctor", "Versions, devices, disk, and a two-process check. Exit 1 if training cannot work."
    )
    parser.add_argument("--folder", default=".", metavar="DIR", help="where runs will be written")
    options = shared.parse(parser, arguments)
    folder = pathlib.Path(options.folder)
    checks = [check_python, check_libraries, check_devices, lambda: check_disk(folder), check_processes]
    problems = 0
    for check in checks:
        for good, text in check():
            problems += not good
            print(f"{'ok     ' if good else 'PROBLEM'}  {text}")
    print("this machine can train" if not problems else f"{problems} problem(s)")
    return int(problems > 0)


def check_python():
    supported = sys.version_info >= (3, 11)
    yield (
        supported,
        f"Python {platform.python_version()} on {platform.platform()}" + ("" if supported else "; 3.11 is needed"),
    )
    yield True, f"{os.cpu_count()} processor cores"


def check_libraries():
    for name in LIBRARIES:
        try:
            yield True, f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield False, f"{name} is not installed: pip install -e . -c constraints.txt"
    try:
        yield True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in TASK_LIBRARIES)
    except importlib.metadata.PackageNotFoundError as error:
        yield True, f"{error.name} is not installed: `prepare` and `tasks` need the extra `tasks`, training does not"


def check_devices():
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        yield False, f"JAX finds no device: {str(error).splitlines()[0]}"
        return
    yield True, f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    value = float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((64, 64))))
    yield value == 64.0**3, f"a compiled matrix product gives {value:.0f}"


def check_disk(folder: pathlib.Path):
    from t5x_like.train import disk

    try:
        disk.probe_writable(folder)
        yield True, f"{folder.resolve()} can be written"
    except OSError as error:
        yield False, str(error)
        return
    free = shutil.disk_usage(folder).free
    yield free > LOW_DISK_BYTES, f"{free / 1e9:,.1f} GB free"


def check_processes():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    command = [sys.executable, "-c", _PEER, address]
    environment = {**os.environ, "PYTHONPATH": str(shared.PACKAGE_FOLDER)}
    peers = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
        for i in range(2)
    ]
    try:
        printed = [peer.communicate(timeout=LOOPBACK_SECONDS) for peer in peers]
    except subprocess.TimeoutExpired:
        yield (
            False,
            f"two processes on this machine did not find each other in {LOOPBACK_SECONDS} s: look at the firewall",
        )
        return
    finally:
        for peer in peers:
            peer.kill()
    agreed = all(out.split()[-1:] == ["3"] for out, _ in printed)
    last = "" if agreed else ": " + (printed[0][1].strip().splitlines() or ["no message"])[-1]
    yield agreed, f"two processes on this machine {'work together' if agreed else 'fail'}{last}"
