"""Facts as distances, and their contrast against the formula written out in float64."""

import jax.numpy as jnp
import numpy as np

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.features import Features
from t5x_like.objectives.relation_contrast import HEADS, RelationContrast, contrast_relations
from t5x_like.vocabularies.special_tokens import SpecialTokens

CONTEXT = Context({"targets": 16}, SpecialTokens(pad=0, eos=1, cls=2, separator=3, mask=4), 1000)


def fact(relation, head):
    return 1 + relation * HEADS + head


def made(entities, relations):
    text = ragged.from_list([np.arange(len(row)) + 10 for row in entities])
    features = {"targets": text, "entities": ragged.from_list(entities), "relations": ragged.from_list(relations)}
    return RelationContrast().examples(
        np.random.default_rng(0), Documents(features, np.ones(len(entities), bool)), CONTEXT
    )


def test_a_fact_is_told_at_its_tail_by_the_distance_of_its_head():
    side = made([[2, 3, 0, 4, 5, 5, 0], [0, 4, 0, 2, 0]], [[0, 0, 0, fact(7, 1), 0, 0, 0], [0, fact(0, 1), 0, 0, 0]])
    places = np.flatnonzero(side.aux["relation"])
    assert places.tolist() == [4, 11] and side.aux["relation"][places].tolist() == [8, 1]
    assert side.aux["relation_head"][places].tolist() == [-3, 2]
    assert side.aux["mention"][[1, 4, 11, 13]].tolist() == [2, 3, 1, 1]
    assert not side.loss_weights[[1, 2, 4, 5, 6, 11, 13]].any()


def test_a_fact_whose_head_is_not_in_the_text_is_none():
    side = made([[2, 0, 4], [6, 0, 0]], [[0, 0, fact(1, 3)], [0, 0, 0]])
    assert not side.aux["relation"].any()


def test_the_contrast_in_float64():
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    relation, head, mention = np.zeros((3, 2, 6), np.int32)
    relation[0, 2], head[0, 2], relation[0, 4], head[0, 4] = 1, -2, 2, -4
    relation[1, 3], head[1, 3], relation[1, 5], head[1, 5] = 1, -2, 1, -4
    mention[0, [0, 2, 4]], mention[1, [1, 3, 5]] = [2, 2, 1], [1, 2, 1]
    aux = {"relation": relation, "relation_head": head, "mention": mention}
    batch = Features(None, None, None, None, None, None, aux={k: jnp.asarray(v) for k, v in aux.items()})
    found = contrast_relations(None, jnp.asarray(x, jnp.float32), batch)
    pairs = [
        np.concatenate([x[0, 0:2].mean(0), x[0, 2:4].mean(0)]),
        np.concatenate([x[0, 0:2].mean(0), x[0, 4]]),
        np.concatenate([x[1, 1], x[1, 3:5].mean(0)]),
        np.concatenate([x[1, 1], x[1, 5]]),
    ]
    unit = np.array([pair / np.linalg.norm(pair) for pair in pairs])
    logits = unit @ unit.T / 0.05
    np.fill_diagonal(logits, -np.inf)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    same = [(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)]
    np.testing.assert_allclose(found["loss"].sum, -sum(log_p[pair] for pair in same), rtol=1e-4)
    assert found["loss"].weight == 6 and found["recall"].weight == 3
