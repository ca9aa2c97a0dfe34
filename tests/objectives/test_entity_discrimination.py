"""Questions before texts, and the contrast of entities against the formula written out in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.features import Features
from t5x_like.objectives.entity_discrimination import EntityDiscrimination, find_tails
from t5x_like.vocabularies.special_tokens import SpecialTokens
from tests.objectives.test_relation_contrast import fact

SPECIAL = SpecialTokens(pad=0, eos=1, cls=2, separator=3, mask=4)


class Letters:
    def encode(self, text):
        return [900 + ord(letter) - ord("a") for letter in text]


CONTEXT = Context({"targets": 32}, SPECIAL, 1000, Letters())
ENTITIES, RELATIONS = [2, 3, 0, 4, 5, 0, 2, 0, 6], [0, 0, 0, fact(1, 1), 0, 0, 0, 0, 0]


def made(entities, relations, seed=0):
    text = ragged.from_list([np.arange(len(row)) + 10 for row in entities])
    features = {"targets": text, "entities": ragged.from_list(entities), "relations": ragged.from_list(relations)}
    objective = EntityDiscrimination(relation_names=("x", "ab"), question_length=6)
    documents = Documents(features, np.ones(len(entities), bool))
    return objective.examples(np.random.default_rng(seed), documents, CONTEXT)


def test_the_words_of_the_relation_and_the_head_stand_before_the_text():
    side = made([ENTITIES], [RELATIONS])
    assert side.targets.tolist() == [2, 900, 901, 10, 11, 3, *range(10, 19), 3]
    assert side.aux["entity"].tolist() == [0] * 6 + [1, 1, 0, 2, 2, 0, 1, 0, 3] + [0]
    assert side.aux["entity_role"].tolist() == [0] * 6 + [1, 0, 0, 2, 0, 0, 0, 0, 3] + [0]
    assert np.isin(np.flatnonzero(side.loss_weights), [8, 11, 13]).all() and side.loss_weights.any()


def test_a_text_without_facts_is_asked_nothing_and_one_with_several_is_asked_each_at_times():
    side = made([[2, 0, 4], ENTITIES], [[0, 0, fact(1, 3)], RELATIONS])
    assert side.lengths.tolist() == [5, 16] and not side.aux["entity_role"][:5].any()
    both = [0, 0, 0, fact(1, 1), 0, 0, 0, 0, fact(0, 2)]
    tails = [np.flatnonzero(made([ENTITIES], [both], seed).aux["entity_role"] == 2)[0] for seed in range(200)]
    values, counts = np.unique(tails, return_counts=True)
    assert len(values) == 2
    # At p = 1/2 fewer than 65 of 200 comes once in a million times.
    assert counts.min() > 65


def test_relations_without_a_name_are_an_error():
    with pytest.raises(ValueError, match="the data has relation 2, relation_names has 2 names"):
        made([ENTITIES], [[0, 0, 0, fact(2, 1), 0, 0, 0, 0, 0]])


def test_the_contrast_in_float64():
    x = np.random.default_rng(0).standard_normal((1, 12, 4))
    segments = np.array([[1] * 6 + [2] * 6])
    entity = np.array([[1, 1, 2, 0, 1, 3, 1, 2, 2, 0, 4, 0]])
    role = np.array([[1, 0, 2, 0, 0, 3, 2, 1, 0, 0, 3, 0]])
    batch = Features(None, None, None, jnp.asarray(segments), None, None, aux={})
    batch = batch._replace(aux={"entity": jnp.asarray(entity), "entity_role": jnp.asarray(role)})
    found = find_tails(None, jnp.asarray(x, jnp.float32), batch)
    x = x[0]
    texts = [
        (x[[0, 1, 4]].mean(0), [x[2], x[5]]),
        (x[[7, 8]].mean(0), [x[6], x[10]]),
    ]
    total, right = 0.0, 0
    for head, others in texts:
        cosines = np.array([head @ o / np.linalg.norm(head) / np.linalg.norm(o) for o in others]) / 0.05
        total += np.log(np.exp(cosines).sum()) - cosines[0]
        right += cosines[0] >= cosines.max()
    np.testing.assert_allclose(found["loss"].sum, total, rtol=1e-4)
    assert found["loss"].weight == 2 and found["accuracy"].sum == right
