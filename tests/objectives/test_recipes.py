"""The battery of configs/objectives: every objective has a recipe, and every recipe builds what it says."""

import pathlib

import numpy as np
import pytest

from t5x_like import configs
from t5x_like.commands.options import arguments_of
from t5x_like.configurables import CONFIGURABLES
from t5x_like.data.examples import Context, no_examples
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.vocabularies.special_tokens import SpecialTokens
from tests.test_all_objectives import MARKERS

RECIPES = sorted(pathlib.Path("configs/objectives").glob("*.gin"))
SPECIAL = SpecialTokens(
    markers={name: 32_010 + k for k, name in enumerate(MARKERS)},
    pad=0,
    eos=1,
    unk=2,
    sentinels=tuple(range(32_299, 32_099, -1)),
    modes={"R": 32_000, "S": 32_001, "X": 32_002},
)


class VOCABULARY:
    begins_word = np.ones(32_300, bool)

    @staticmethod
    def encode(text):
        return [ord(character) for character in text]


def arguments(path):
    """What `train` gets of a recipe, with a model and an optimizer beside it."""
    text = path.read_text()
    model = "Encoder" if "@in_place" in text else "Decoder"
    overrides = ["Pipeline.directory=data", "Pipeline.mixture=text", "Pipeline.batch_size=8", "data=@Pipeline()"]
    overrides += [f"model=@{model}", "optimizer=@sgd()", "sgd.learning_rate=0.1", "steps=1", "model_dir=run"]
    name = path.relative_to("configs").as_posix()
    table = CONFIGURABLES | {"train": arguments_of(CONFIGURABLES["train"])}
    return configs.resolve(table, [name], overrides, root="train", search_paths=["configs"]).call()


def pipeline(path):
    return arguments(path)["data"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_ten_lines_that_fit_together(path):
    made = pipeline(path)
    made.objective.check(Context(made.lengths, SPECIAL, 32_300, VOCABULARY))
    sides = made.render(no_examples(made.objective, Context(made.lengths, SPECIAL, 32_300, VOCABULARY)))
    assert len(sides) == len(made.lengths)
    assert path.read_text().count("\n") <= 10


def test_every_objective_has_a_recipe():
    assert {type(pipeline(path).objective) for path in RECIPES} == set(OBJECTIVES.values())
