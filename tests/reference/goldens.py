"""Every golden file made again and compared with the stored one: `make parity`. Exit 1 if one of them differs.

A script whose packages are not installed is named and left out; each runs in a process of its own.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.table import Table

MAKERS = (
    "collators",
    "contrastive_losses",
    "corpus_filters",
    "kenlm_scores",
    "pair_losses",
    "rotary_scalings",
    "t5_preprocessors",
)
GOLDENS = pathlib.Path("tests/golden")
TOLERANCE = 1e-5  # relative; another processor adds in another order
VERSIONS = ("made_by", "made_with", "versions")
RUN = """
import importlib, pathlib, sys
try:
    maker = importlib.import_module("tests.golden.make." + sys.argv[1])
    maker.GOLDEN = pathlib.Path(sys.argv[2])
    maker.main()
except ModuleNotFoundError as error:
    sys.exit("no package " + str(error.name))
"""


def differences(stored, made, path: str = "") -> list[str]:
    """Where two JSON values differ by more than rounding."""
    if isinstance(stored, dict) and isinstance(made, dict):
        names = [name for name in stored.keys() | made.keys() if name not in VERSIONS]
        return [d for name in sorted(names) for d in differences(stored.get(name), made.get(name), f"{path}/{name}")]
    if isinstance(stored, list) and isinstance(made, list) and len(stored) == len(made):
        return [d for i, pair in enumerate(zip(stored, made, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    if isinstance(stored, float) and isinstance(made, float):
        return [] if abs(stored - made) <= TOLERANCE * max(1.0, abs(stored)) else [f"{path}: {stored} and {made}"]
    return [] if stored == made else [f"{path}: {str(stored)[:60]} and {str(made)[:60]}"]


def compare(maker: str, folder: pathlib.Path) -> str:
    """The word same, which package is missing, or the first place that differs."""
    made = folder / f"{maker}.json"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", RUN, maker, str(made)], capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1:] or [""]
    if done.returncode:
        return said[0]
    found = differences(json.loads((GOLDENS / f"{maker}.json").read_text()), json.loads(made.read_text()))
    return f"{len(found)} differ, the first at {found[0]}" if found else "same"


def main() -> None:
    table = Table("golden", "made again", title="Goldens of reference implementations")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for maker in MAKERS:
            result = compare(maker, pathlib.Path(folder))
            table.add_row(maker, result)
            if result != "same" and not result.startswith("no package"):
                failed.append(maker)
    Console(width=120).print(table)
    sys.exit(f"differ: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
