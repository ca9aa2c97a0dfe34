"""Steps that learn from texts before they judge any: models trained once for a recipe, in the folder of its corpus.

Such a step has a `model`, which tells by `texts()` the readers that it learns from (none, if it comes as a file),
writes its files by `train(folder)`, which returns what is known of it, for the manifest, and is then `trained(folder)`.
One process trains, before the first stage, into a temporary folder that is renamed when whole; workers read the files.
"""

import collections
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from t5x_like.corpus import run

CARD = "card.json"


class Learned(NamedTuple):
    """A reader that a step learns from, under the step's name and the part that it has in learning."""

    name: str
    reader: Any


def steps_that_learn(steps: Sequence[Any]) -> list[Any]:
    return [step for step in steps if hasattr(step, "model")]


def readers_of(steps: Sequence[Any]) -> list[Learned]:
    """Every reader that any step learns from."""
    return [
        Learned(f"{step.name}: {part}", reader)
        for step in steps_that_learn(steps)
        for part, reader in step.model.texts().items()
    ]


def check_names(steps: Sequence[Any]) -> None:
    names = [step.name for step in steps_that_learn(steps)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"steps {twice} have one name: give each that has a model its own, it names its scores too")


def fit_all(steps: Sequence[Any], folder: pathlib.Path) -> tuple[list[Any], dict[str, dict]]:
    """(the steps with trained models, {name: what is known of the model}); a model that is there is not made again."""
    fitted, known = [], {}
    for step in steps:
        if hasattr(step, "model"):
            model, known[step.name] = fit(step.model, folder / step.name)
            step = dataclasses.replace(step, model=model)
        fitted.append(step)
    return fitted, known


def fit(model: Any, folder: pathlib.Path) -> tuple[Any, dict]:
    """(the model as a file, what is known of it)."""
    if not model.texts():
        return model, {}
    if not folder.exists():
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        temporary.mkdir(parents=True)
        try:
            run.write_text(temporary / CARD, json.dumps(model.train(temporary), indent=1))
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return model.trained(str(folder)), json.loads((folder / CARD).read_text(encoding="utf-8"))


def texts_of(reader: Any) -> Iterator[str]:
    """The texts of all documents that could be read."""
    for path in reader.files():
        for item in reader.documents(path, collections.Counter()):
            if not isinstance(item, str) and item.get("text", "").strip():
                yield item["text"]
