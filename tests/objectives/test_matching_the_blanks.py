"""Statements around two entities: where they begin and end, what is blanked, and who stands beside whom."""

import numpy as np
import pytest

from t5x_like.data import mentions, ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.matching_the_blanks import MARKERS, MatchingTheBlanks
from t5x_like.vocabularies.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(
    pad=0, eos=1, cls=2, separator=3, mask=4, markers={name: 5 + k for k, name in enumerate(MARKERS)}
)
E1, END1, E2, END2, BLANK = range(5, 10)
CONTEXT = Context({"targets": 64}, SPECIAL, 10_000)


def made(tokens, entities, **fields):
    objective = MatchingTheBlanks(**fields)
    objective.check(CONTEXT)
    features = {"targets": ragged.from_list(tokens), "entities": ragged.from_list(entities)}
    documents = Documents(features, np.ones(len(tokens), bool))
    return objective.examples(np.random.default_rng(0), documents, CONTEXT)


def test_mentions_are_runs_of_one_entity():
    found = mentions.find_mentions(ragged.from_list([[0, 4, 5, 5, 4, 0, 6], [7, 7, 0, 4, 6]]))
    assert found.starts.tolist() == [1, 4, 6, 7, 10, 11] and found.lengths.tolist() == [3, 1, 1, 2, 1, 1]
    assert found.entity.tolist() == [2, 2, 3, 3, 2, 3] and found.sequence.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_statement_has_its_markers_around_two_entities():
    side = made([[100, 101, 102, 103, 104, 105]], [[0, 2, 3, 0, 4, 0]], blank_share=0.0)
    assert side.targets.tolist() == [2, 100, E1, 101, 102, END1, 103, E2, 104, END2, 105, 3]
    assert side.aux["relation"].nonzero()[0].tolist() == [2] and side.aux["relation_tail"][2] == 5
    blanked = made([[100, 101, 102, 103, 104, 105]], [[0, 2, 3, 0, 4, 0]], blank_share=1.0)
    assert blanked.targets.tolist() == [2, 100, E1, BLANK, END1, 103, E2, BLANK, END2, 105, 3]


def test_statements_of_a_pair_stand_side_by_side_in_two_parts():
    tokens, entities = [[100, 101, 102]] * 3 + [[200, 201, 202]], [[2, 0, 4]] * 3 + [[6, 0, 4]]
    side = made(tokens, entities)
    assert side.num_examples == 3
    for k in range(3):
        one = side.cut(k, k + 1)
        labels = one.aux["relation"][one.aux["relation"] > 0]
        assert len(set(labels.tolist())) == 1 and len(labels) == one.parts.max() + 1
        assert one.positions[:, 0].tolist() == [
            p for part in range(len(labels)) for p in range((one.parts == part).sum())
        ]
    assert len(set(side.aux["relation"].tolist())) == 3  # two pairs of entities, and none


def test_seven_of_ten_mentions_are_blanked_and_no_row_overflows():
    rng = np.random.default_rng(1)
    tokens = [rng.integers(100, 9000, 400) for _ in range(100)]
    entities = [np.where(np.arange(400) % 13 < 2, 2 * (np.arange(400) // 13 % 30 + 1) + np.arange(400) % 13, 0)] * 100
    side = made(tokens, entities, mask=MaskedLM(rate=0.01))
    mentioned = (side.targets == E1).sum() * 2
    share = (side.targets == BLANK).sum() / mentioned
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / mentioned) and mentioned > 5000
    assert side.lengths.max() <= 64
    assert ((side.targets == E1).sum() == (side.targets == END2).sum()) and side.tokens.min() > 0


def test_missing_markers_are_named():
    with pytest.raises(ValueError, match="control piece <mark:e1>"):
        MatchingTheBlanks().check(CONTEXT._replace(special=SpecialTokens(pad=0, eos=1, mask=4)))
