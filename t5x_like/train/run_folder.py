"""What a run folder holds: its steps, whether they are sound, and who is writing. Imports neither JAX nor Orbax.

MODEL_DIR/checkpoints/1200/                      one step: state/  data/  metadata/  SHA256SUMS
MODEL_DIR/checkpoints/1100.corrupt-20260131T...  set aside as damaged, never read again
MODEL_DIR/run.lock                               who writes here
"""

import datetime
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from t5x_like.train import digests

Problems = Callable[[pathlib.Path], list[str]]  # what is wrong with the checkpoint in this folder


class StepReport(NamedTuple):
    """One line of `inspect`."""

    step: int
    problems: list[str]  # none for a good step
    num_files: int
    num_bytes: int
    written: datetime.datetime
    metadata: dict[str, Any]  # what `save` was given, {} when it cannot be read


def checkpoint_steps(checkpoints: pathlib.Path) -> list[int]:
    """The steps that have a folder, sound or not, oldest first."""
    if not checkpoints.is_dir():
        return []
    return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal() and path.is_dir())


def inspect_steps(checkpoints: pathlib.Path, problems: Problems = digests.problems) -> list[StepReport]:
    """Every step with its size and what is wrong with it. Reads everything: that is what `verify` is for."""
    return [inspect_step(checkpoints / str(step), problems) for step in checkpoint_steps(checkpoints)]


def inspect_step(folder: pathlib.Path, problems: Problems = digests.problems) -> StepReport:
    files = [path for path in folder.rglob("*") if path.is_file()]
    try:
        metadata = read_json(folder, "metadata")
    except ValueError:
        metadata = {}
    return StepReport(
        step=int(folder.name),
        problems=problems(folder),
        num_files=len(files),
        num_bytes=sum(path.stat().st_size for path in files),
        written=datetime.datetime.fromtimestamp(folder.stat().st_mtime, datetime.UTC),
        metadata=metadata,
    )


def set_aside(checkpoints: pathlib.Path) -> list[str]:
    """The names of the steps that were renamed because they were damaged or incomplete."""
    return sorted(path.name for path in checkpoints.glob("*.corrupt-*")) if checkpoints.is_dir() else []


def read_json(step_folder: pathlib.Path, item: str) -> dict[str, Any]:
    """The JSON item (`data` or `metadata`) of a checkpoint."""
    path = step_folder / item / "metadata"  # the file name is Orbax's, whatever the item
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); `t5x_like verify` says what else is wrong") from None


class Choice(NamedTuple):
    """Which step to restore, and which ones stand in the way."""

    step: int | None  # None: start at step 0
    set_aside: dict[int, str]  # step: why


def newest_valid(checkpoints: pathlib.Path, problems: Problems = digests.problems) -> Choice:
    """The newest step that is what was written; changes nothing.

    When damaged steps are all there is, this refuses: a run must never begin again at step 0 without a word.
    """
    set_aside, damaged = {}, False
    for step in reversed(checkpoint_steps(checkpoints)):
        folder = checkpoints / str(step)
        wrong = problems(folder)
        if not wrong:
            return Choice(step, set_aside)
        is_empty = not any(path.is_file() for path in folder.rglob("*"))
        set_aside[step] = "the folder holds no file" if is_empty else summary(wrong)
        damaged = damaged or not is_empty
    if damaged:
        raise ValueError(
            f"no checkpoint in {checkpoints} is sound ("
            + "; ".join(f"step {step}: {why}" for step, why in set_aside.items())
            + "); restore the files from a copy, or ask for a fresh start (--start_fresh) to begin again at step 0"
        )
    return Choice(None, set_aside)


def every_step(checkpoints: pathlib.Path) -> Choice:
    """The choice of a fresh start: nothing is restored, and every step is set aside (never deleted)."""
    return Choice(None, dict.fromkeys(checkpoint_steps(checkpoints), "a fresh start was asked for"))


def rename_set_aside(checkpoints: pathlib.Path, choice: Choice) -> None:
    """Gives the steps that stand in the way a name that nothing reads."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    for step in choice.set_aside:
        (checkpoints / str(step)).rename(checkpoints / f"{step}.corrupt-{stamp}-{os.getpid()}")


def explain(choice: Choice) -> list[str]:
    """What to tell the user, one line per step that was set aside."""
    then = "starting at step 0" if choice.step is None else f"going back to step {choice.step}"
    return [f"checkpoint {step} set aside as {step}.corrupt-*: {why}; {then}" for step, why in choice.set_aside.items()]


def summary(wrong: list[str]) -> str:
    return wrong[0] + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")


def write_atomically(path: pathlib.Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def append_event(model_dir: pathlib.Path, kind: str, text: str) -> None:
    """One line of events.jsonl: what happened to the run, and when."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (model_dir / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": now, "event": kind, "text": text}) + "\n")
