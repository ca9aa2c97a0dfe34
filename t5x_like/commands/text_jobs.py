"""What `generate` and `score` share: the run's model, and JSONL read and written line by line."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TextIO

from t5x_like.commands import options as shared


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_dir", metavar="MODEL_DIR")
    parser.add_argument("--input", required=True, metavar="FILE", help='.jsonl with "inputs"; - for standard input')
    parser.add_argument("--output", default="-", metavar="FILE", help="default: standard output")
    parser.add_argument("--step", default="latest", metavar="latest|N")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N")
    shared.add_config_options(parser)


def open_model(options):
    """The run's model on one device, with the vocabulary of its tasks."""
    from t5x_like.decoding import prompts
    from t5x_like.decoding.texts import TextModel
    from t5x_like.evaluation import load
    from t5x_like.objectives.table import OBJECTIVES

    if options.step == "all":
        raise ValueError("--step=all: choose latest or one step")
    run = shared.open_run(options, options.model_dir)
    rows = run.data.train_rows(OBJECTIVES).of_host(0, 1)
    vocabulary = rows.plan.tasks[0].split.task.vocabulary
    arrangement = prompts.arrangement_of(next(iter(rows)), vocabulary.special)
    loaded = load.load(run, run.choose(options.step)[0], load.one_device())
    return TextModel(loaded.graphdef, loaded.params, vocabulary, arrangement, options.batch_size)


def read_rows(name: str, wanted: tuple[str, ...]) -> Iterator[dict]:
    """The objects of a JSONL file, each with the wanted texts."""
    with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                raise ValueError(f"{name}, line {number} is not UTF-8 text") from None
            except ValueError as error:
                raise ValueError(f"{name}, line {number} is not JSON: {error}") from None
            if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in wanted):
                raise ValueError(f"{name}, line {number}: every line is an object with the texts {', '.join(wanted)}")
            yield row


@contextlib.contextmanager
def rows_writer(name: str):
    """write(row); a file appears under its name when all of it is written."""
    if name == "-":
        yield lambda row: print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    path = pathlib.Path(name)
    if path.is_dir():
        raise IsADirectoryError(f"--output={name} is a folder: name a file in it")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open_to_write(temporary, name) as file:
            yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_to_write(path: pathlib.Path, name: str) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise OSError(f"cannot write --output={name}: {error.strerror}") from None
