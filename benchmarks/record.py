"""Where a measurement comes from and how it is kept: a markdown table with commit, machine, load and versions."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]


def provenance(packages: Iterable[str]) -> str:
    """One line: commit, processor, cores, load of the last minute, versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    load = os.getloadavg()[0]
    return (
        f"commit {commit()}, {processor()}, {os.cpu_count()} cores, load {load:.1f} at the end (the benchmark's own "
        f"included), Python {platform.python_version()}, {versions}"
    )


def commit() -> str:
    described = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return described.stdout.strip() or "none yet"


def processor() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def publish(text: str, output: str | None) -> None:
    """Prints `text`, and appends it to the file `output` if there is one."""
    print(text)
    if output:
        with pathlib.Path(output).open("a", encoding="utf-8") as file:
            file.write("\n" + text + "\n")
