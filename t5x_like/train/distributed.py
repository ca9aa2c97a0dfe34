"""Joining the processes of one run, with deaths noticed in seconds."""

import hashlib
import os
import socket
import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def start_distributed(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_device_ids: Sequence[int] | None = None,
    heartbeat_seconds: int = 30,
    start_seconds: int = 300,
    exit_seconds: int = 60,
) -> None:
    """Joins this process to the run. Call it before anything else touches JAX, and only in a run of several processes.

    coordinator        "host:port" of process 0; with num_processes and process_id, or all three None to ask the cluster
                       (TPU, Slurm, Open MPI, Kubernetes)
    heartbeat_seconds  a process that is dead this long ends the others
    start_seconds      how long to wait for all processes to arrive
    exit_seconds       how long a finished process waits for the others
    """
    explicit = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    absent = [name for name, value in explicit.items() if value is None]
    if absent and len(absent) < len(explicit):
        raise ValueError(f"give all of coordinator, num_processes and process_id, or none; {absent} is absent")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"coordinator {coordinator!r} must be host:port, such as 10.0.0.1:8476")
    if num_processes is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"process_id {process_id} must be from 0 to {num_processes - 1}")
    if coordinator is not None:
        check_coordinator(coordinator, process_id, start_seconds)
    # JAX binds the coordinator, which asks nobody for a password, to every interface. One machine needs only loopback.
    on_loopback = coordinator is not None and coordinator.rpartition(":")[0] in LOOPBACK
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=num_processes,
            process_id=process_id,
            local_device_ids=local_device_ids,
            initialization_timeout=start_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=exit_seconds,
            coordinator_bind_address=coordinator if on_loopback else None,
        )
    except (RuntimeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        who = "the cluster's own settings" if coordinator is None else f"{num_processes} processes at {coordinator}"
        raise RuntimeError(f"could not join {who} as process {process_id}: {why}") from error


def check_coordinator(coordinator: str, process_id: int, start_seconds: float) -> None:
    """Raises one sentence where JAX would abort with a C++ stack: the port is taken, or process 0 does not answer."""
    host, _, port = coordinator.rpartition(":")
    if process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            why = os.strerror(error.errno)
            raise RuntimeError(f"coordinator {coordinator}: port {port}: {why}; choose another port") from None
        return
    end = time.monotonic() + start_seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"process 0 does not answer at {coordinator} after {start_seconds} s ({error}); "
                    "start it, or correct the address"
                ) from None
        time.sleep(0.2)


def require_agreement(what: str, text: str) -> None:
    """Raises on every process when `text` (a configuration, a version) is not the same on all of them."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.uint32)
    digests = multihost_utils.process_allgather(digest)
    odd = [process for process, other in enumerate(digests) if (other != digests[0]).any()]
    if odd:
        raise ValueError(f"{what} of process {odd} differs from that of process 0; start all with the same command")
