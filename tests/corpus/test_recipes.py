"""The battery of configs/corpora: every recipe resolves, and its steps can be built."""

import pathlib

import pytest

from t5x_like import configs
from t5x_like.commands.options import arguments_of
from t5x_like.corpus.table import CORPUS

RECIPES = sorted(pathlib.Path("configs/corpora").glob("*.gin"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_its_sources_and_steps(path, tmp_path):
    table = CORPUS | {"curate": arguments_of(CORPUS["curate"])}
    where = {"root": "curate", "search_paths": ["configs"]}
    name = path.relative_to("configs").as_posix()
    left_open = [key for key in configs.left_open(table, [name], **where) if key != "curate.output_dir"]
    (tmp_path / "texts.txt").write_text("A text.")
    values = {"paths": f"['{tmp_path}/texts.txt']", "folder": f"'{tmp_path}'"}
    overrides = [f"--gin.{key}={values[key.rpartition('.')[2]]}" for key in left_open]
    made = configs.resolve(table, [name], [*overrides, "characters=1000", "output_dir=x"], **where).call()
    assert made["sources"] and made["steps"]
    assert all(callable(step) or hasattr(step, "choose") for step in made["steps"])
