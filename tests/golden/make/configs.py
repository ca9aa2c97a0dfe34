"""Writes tests/golden/configs/*.txt, the resolved text of every run: `python -m tests.golden.make.configs`."""

import pathlib

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES

RUNS = pathlib.Path("configs/runs")
GOLDEN = pathlib.Path("tests/golden/configs")
ROOT = "train"


def resolved(path: pathlib.Path) -> configs.Resolved:
    """A run as it stands; what it leaves to the command line (a data path, a folder) is "..."."""
    where = {"root": ROOT, "search_paths": ["configs"]}
    name = path.relative_to("configs").as_posix()
    left_open = configs.left_open(CONFIGURABLES, [name], **where)
    supplied = [key.removeprefix(f"{ROOT}.") for key in left_open if key.startswith(f"{ROOT}.")]
    overrides = [f"--gin.{key}='...'" for key in left_open if not key.startswith(f"{ROOT}.")]
    return configs.resolve(CONFIGURABLES, [name], overrides, supplied=supplied, **where)


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in sorted(RUNS.glob("*.gin")):
        (GOLDEN / f"{path.stem}.txt").write_text(resolved(path).text)
        print(GOLDEN / f"{path.stem}.txt")


if __name__ == "__main__":
    main()
