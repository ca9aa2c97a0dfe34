"""Against what transformers' collators hide and how trl packs: tests/golden/make/collators.py made the numbers."""

import json
import pathlib

import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.packing import best_fit_decreasing
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.vocabularies.special_tokens import SpecialTokens

GOLDEN = json.loads(pathlib.Path("tests/golden/collators.json").read_text())
FIRST, WORDS, ROWS, LENGTH = 5, 600, 4000, 62
SPECIAL = SpecialTokens(pad=0, eos=3, unk=1, cls=2, mask=4)
OURS = {
    "tokens": MaskedLM(budget="each"),
    "whole words": MaskedLM(budget="each", units="words", masked=1.0, random=0.0),
}


class TwoPieces:
    """A word is two pieces."""

    begins_word = np.append(np.zeros(FIRST, bool), np.arange(2 * WORDS) % 2 == 0)


def counts(objective):
    words = np.random.default_rng(1).integers(0, WORDS, (ROWS, LENGTH // 2))
    pieces = np.stack([FIRST + 2 * words, FIRST + 2 * words + 1], axis=-1).reshape(ROWS, -1)
    documents = Documents({"targets": ragged.from_list(pieces.astype(np.int32))}, np.ones(ROWS, bool))
    context = Context({"targets": LENGTH + 2}, SPECIAL, FIRST + 2 * WORDS, TwoPieces())
    side = objective.examples(np.random.default_rng(2), documents, context)
    chosen = side.loss_weights.reshape(ROWS, -1) > 0
    read, text = side.tokens.reshape(ROWS, -1), side.targets.reshape(ROWS, -1)
    assert (read[~chosen] == text[~chosen]).all() and (text[:, 1:-1] == pieces).all()
    whole = chosen[:, 1:-1].reshape(ROWS, -1, 2)
    return {
        "tokens": pieces.size,
        "predicted": int(chosen.sum()),
        "special_predicted": int(chosen[:, [0, -1]].sum()),
        "masked": int((read[chosen] == 4).sum()),
        "kept": int((read[chosen] == text[chosen]).sum()),
        "words_cut": int((whole.any(axis=-1) & ~whole.all(axis=-1)).sum()),
    }


@pytest.mark.parametrize("name", OURS)
def test_as_much_is_hidden_and_in_the_same_ways(name):
    """248,000 tokens each: a rate off by 0.005, or a share of masks by 0.014, would be seen (4.5 deviations)."""
    ours, theirs = counts(OURS[name]), GOLDEN["masked"][name]
    assert ours["tokens"] == theirs["tokens"] and ours["special_predicted"] == theirs["special_predicted"] == 0
    assert (ours["words_cut"] == 0) == (theirs["words_cut"] == 0)
    words = 2 if name == "whole words" else 1  # tokens that are drawn together
    for part, whole in (("predicted", "tokens"), ("masked", "predicted"), ("kept", "predicted")):
        share, of = theirs[part] / theirs[whole], theirs[whole] / words
        assert abs(ours[part] / ours[whole] - share) <= 4.5 * (2 * share * (1 - share) / of) ** 0.5, part


@pytest.mark.parametrize("row", GOLDEN["packed"], ids=lambda row: str(row["capacity"]))
def test_rows_are_as_full_as_trl_s(row):
    lengths = np.array(row["lengths"])
    rows = best_fit_decreasing(lengths, row["capacity"])
    assert sorted(np.bincount(rows, lengths).astype(int).tolist()) == row["fills"]
