"""One writer per run folder: MODEL_DIR/run.lock says who.

A second launch is refused with the owner's name. The lock of a dead process is taken over: on the same machine the
process is looked up; on another one the lock's age decides, because a living owner touches the file.
"""

import datetime
import json
import os
import pathlib
import socket
import sys
import tempfile
import threading
from typing import Any

NAME = "run.lock"
BEAT_SECONDS = 15.0
LEASE_SECONDS = 120.0  # without a touch, an owner on another machine counts as dead


class RunLock:
    """Held from now until `release`. Only process 0 of a run takes it."""

    def __init__(
        self,
        model_dir: str | pathlib.Path,
        *,
        take_over: bool = False,
        beat_seconds: float = BEAT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ):
        """Raises when another run holds the folder; with `take_over` that run will stop itself instead."""
        self._path = pathlib.Path(model_dir) / NAME
        self._me = this_process()
        self._lost: str | None = None
        self.notes = self._acquire(take_over, lease_seconds)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_seconds,), name="run_lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises when another run has taken the folder. Call it every step."""
        if self._lost is not None:
            raise RuntimeError(f"{self._path} was taken over by {self._lost}; stopped, to leave the folder to that run")

    def release(self) -> None:
        """Gives the folder back."""
        self._released.set()
        self._thread.join()
        if read_owner(self._path) == self._me:
            self._path.unlink()

    def _acquire(self, take_over: bool, lease_seconds: float) -> list[str]:
        notes = []
        while not self._create():
            owner = read_owner(self._path)
            dead = why_dead(self._path, owner, lease_seconds)
            if not dead and not take_over:
                raise RuntimeError(
                    f"{self._path.parent} is in use by {describe(owner)}; wait for it, stop it, "
                    "or choose another folder (if you are sure that it is gone: --take_over)"
                )
            notes += self._move_away(owner, dead or "it was to be taken over")
        return notes

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._me, file)
        return True

    def _move_away(self, owner: dict[str, Any], why: str) -> list[str]:
        """Removes the lock that was judged, and only that one: two newcomers may judge the same lock at once."""
        aside = self._path.with_name(f"{NAME}.{self._me['host']}.{os.getpid()}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return []  # another newcomer was faster, or the owner left
        if read_owner(aside) != owner:
            aside.rename(self._path)
            return []
        aside.unlink()
        return [f"took over the lock of {describe(owner)}: {why}"]

    def _beat(self, beat_seconds: float) -> None:
        while not self._released.wait(beat_seconds):
            owner = read_owner(self._path)
            if owner != self._me:
                self._lost = describe(owner)
                return
            os.utime(self._path)


def lock_owner(model_dir: str | pathlib.Path) -> str | None:
    """Who holds the folder, for people; None when it is free."""
    path = pathlib.Path(model_dir) / NAME
    return describe(read_owner(path)) if path.exists() else None


def this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": started(os.getpid()),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def machine() -> str:
    """What two processes share that can see each other's ids: host, boot and process namespace."""
    parts = [socket.gethostname()]
    if sys.platform.startswith("linux"):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(parts)


def started(pid: int) -> str:
    """When the process began (ticks since boot), to tell it from a later one of its number; "" if it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # proc(5), from field 3
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended, nobody has asked for its exit code yet


def read_owner(path: pathlib.Path) -> dict[str, Any]:
    """The owner's record; {} when there is none, or when it is just being written."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def why_dead(path: pathlib.Path, owner: dict[str, Any], lease_seconds: float) -> str:
    """Why the owner cannot be alive; "" when it may be."""
    if owner.get("machine") == machine():
        return "" if is_alive(owner["pid"], owner["started"]) else "that process has ended"
    age = seconds_since_touch(path)
    return f"no sign of life for {age:.0f} s" if age > lease_seconds else ""


def is_alive(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, of another user
    return started(pid) == start


def seconds_since_touch(path: pathlib.Path) -> float:
    """The age of the file by the clock of the file system: the clocks of two machines may differ."""
    with tempfile.NamedTemporaryFile(prefix=".clock-", dir=path.parent) as probe:
        now = os.stat(probe.name).st_mtime
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "a run that is just starting"
    return f"process {owner['pid']} on {owner['host']} since {owner['since']} ({owner['command']})"
