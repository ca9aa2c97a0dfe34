"""Where metrics go: metrics.jsonl for programs, TensorBoard for people. Process 0 writes.

metrics.jsonl   {"step": 7, "loss": 4.25, ...}: values that follow from the configuration alone, so a run that was
                killed and resumed has the same file, byte for byte, as one that was not
timings.jsonl   {"step": 7, "tokens_per_second": ...}: what depends on the machine
tensorboard/    both
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping

from tensorboardX import SummaryWriter

BOARD_SECONDS = 1.0
FLUSH_SECONDS = 1.0  # rows that a kill takes away are logged again: they are newer than the checkpoint


class JsonLines:
    """One JSON object per line, in the order of the steps."""

    def __init__(self, path: pathlib.Path, resume_step: int):
        keep_up_to(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        self._flushed = -math.inf

    def write(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": step} | {name: jsonable(value) for name, value in values.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._file.flush()
            self._flushed = now

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class MetricsLog:
    """The log of a run that goes on after `resume_step` (0: from the start); what later steps logged is removed."""

    def __init__(self, model_dir: str | pathlib.Path, *, resume_step: int, board_seconds: float = BOARD_SECONDS):
        folder = pathlib.Path(model_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = JsonLines(folder / "metrics.jsonl", resume_step)
        self._timings = JsonLines(folder / "timings.jsonl", resume_step)
        # The name that tensorboardX chooses has whole seconds only: a quick restart would write over the file.
        self._board_seconds, self._board_written = board_seconds, -math.inf
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=resume_step + 1, filename_suffix=f".{os.getpid()}.{resume_step}"
        )

    def write(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Logs both under `step`; either may be empty."""
        if metrics:
            self._metrics.write(step, metrics)
        if timings:
            self._timings.write(step, timings)
        # A point costs 0.1 ms and a curve needs no thousands of them; what is measured rarely is never left out.
        rare = {name: value for name, value in metrics.items() if name.startswith("eval/")}
        now = time.monotonic()
        if now - self._board_written >= self._board_seconds:
            rare, self._board_written = {**metrics, **timings}, now
        for name, value in rare.items():
            if math.isfinite(value):  # TensorBoard has no place for NaN
                self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Brings the metrics to the disk. Call it before a save: a checkpoint must not be newer than its log."""
        self._metrics.sync()

    def close(self) -> None:
        self._metrics.close()
        self._timings.close()
        self._board.close()


class NoLog:
    """The log of every process but 0."""

    def write(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def open_log(model_dir: str | pathlib.Path, *, resume_step: int, process_index: int) -> MetricsLog | NoLog:
    """The log of this process."""
    return MetricsLog(model_dir, resume_step=resume_step) if process_index == 0 else NoLog()


def read_rows(path: str | pathlib.Path) -> list[dict[str, float]]:
    """The rows of a JSON-lines file, without a torn last line (the writer was killed); any other bad line raises."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON ({error}); remove or correct that line") from None
    return rows


def keep_up_to(path: pathlib.Path, step: int) -> None:
    """Removes the rows of later steps and a torn last line, atomically, and leaves the bytes of the others alone."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    rows = read_rows(path)
    kept = "".join(line + "\n" for line, row in zip(text.split("\n"), rows, strict=False) if row["step"] <= step)
    if kept == text:
        return
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(kept)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def jsonable(value: float) -> float | int | str:
    """JSON has no NaN: those become "nan", "inf", "-inf", which float() reads back."""
    if isinstance(value, int):
        return value
    value = float(value)
    return value if math.isfinite(value) else str(value)
