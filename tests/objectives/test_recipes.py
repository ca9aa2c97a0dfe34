"""The battery of configs/objectives: every objective has a recipe, and every recipe builds what it says."""

import pathlib

import pytest

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES
from t5x_like.data.examples import Context
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.vocabularies.special_tokens import SpecialTokens

RECIPES = sorted(pathlib.Path("configs/objectives").glob("*.gin"))
SPECIAL = SpecialTokens(
    pad=0, eos=1, unk=2, sentinels=tuple(range(32_299, 32_099, -1)), modes={"R": 32_000, "S": 32_001, "X": 32_002}
)


def pipeline(path):
    overrides = ["directory=data", "mixture=text", "batch_size=8"]
    name = path.relative_to("configs").as_posix()
    return configs.resolve(CONFIGURABLES, [name], overrides, root="Pipeline", search_paths=["configs"]).call()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_ten_lines_that_fit_together(path):
    made = pipeline(path)
    made.objective.check(Context(made.lengths, SPECIAL, 32_300))
    assert path.read_text().count("\n") <= 10


def test_every_objective_has_a_recipe():
    assert {type(pipeline(path).objective) for path in RECIPES} == set(OBJECTIVES.values())
