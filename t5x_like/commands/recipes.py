"""Recipes of objectives, configs/objectives/*.gin, read without a model and without data."""

import difflib
import pathlib

from t5x_like.commands import options as shared

FOLDER = shared.PACKAGE_FOLDER / "configs" / "objectives"
SHOWN_LENGTH = 64


def pipeline_of(name: str):
    """The Pipeline of a recipe: its objective, lengths and render; what a recipe leaves open is made up."""
    from t5x_like import configs
    from t5x_like.configurables import CONFIGURABLES

    path = path_of(name)
    model = "Encoder" if "@in_place" in path.read_text(encoding="utf-8") else "Decoder"
    made_up = ["Pipeline.directory=data", "Pipeline.mixture=text", "Pipeline.batch_size=8", "data=@Pipeline()"]
    made_up += [f"model=@{model}", "optimizer=@sgd()", "sgd.learning_rate=0.1", "steps=1", "model_dir=run"]
    table = CONFIGURABLES | {"train": shared.arguments_of(CONFIGURABLES["train"])}
    where = [str(shared.PACKAGE_FOLDER / "configs"), str(shared.PACKAGE_FOLDER)]
    return configs.resolve(table, [str(path)], made_up, root="train", search_paths=where).call()["data"]


def path_of(name: str) -> pathlib.Path:
    if (given := pathlib.Path(name)).suffix == ".gin" and given.is_file():
        return given
    known = sorted(path.stem for path in FOLDER.glob("*.gin"))
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"--objective={name} is no file and not one of {', '.join(known)}; nearest is {nearest!r}")
    return FOLDER / f"{name}.gin"


def short(lengths: dict[str, int]) -> dict[str, int]:
    """Rows to look at."""
    return {side: min(length, SHOWN_LENGTH) for side, length in lengths.items()}
