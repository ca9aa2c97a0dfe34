"""UniLM's four masks."""

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.objectives.unilm import UniLM, orders
from t5x_like.vocabularies.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, eos=1, cls=2, separator=3, mask=4)
CONTEXT = Context({"targets": 64}, SPECIAL, 1000)


def side_of(objective, seed=0, count=3000):
    rng = np.random.default_rng(5)
    documents = ragged.from_list(rng.integers(10, 900, (count, 61)))
    made = Documents({"targets": documents}, np.ones(count, bool))
    return objective.examples(np.random.default_rng(seed), made, CONTEXT)


def sees(order):
    return order[None] <= order[:, None]


def test_the_four_orders_are_the_four_masks_of_the_paper():
    """Figure 1: a text of 3 tokens ([CLS] included) and its [SEP], then 3 with theirs."""
    lengths, in_second = np.full(4, 7), np.tile(np.arange(7) >= 4, 4)
    order = orders(np.repeat(np.arange(4), 7), lengths, in_second).reshape(4, 7)
    first = np.arange(7) < 4
    lower = np.tril(np.ones((7, 7), bool))
    assert sees(order[0]).all()
    assert (sees(order[1]) == (first[None] | lower & ~first[:, None])).all()
    assert (sees(order[2]) == lower).all()
    assert (sees(order[3]) == lower.T).all()


def test_rules_types_labels_and_hidden_tokens_have_their_shares():
    """3,000 texts or more, each share within 4 standard errors: a deviation of 0.05 would be caught."""
    side = side_of(UniLM(sentence_ends=range(10, 100)))
    types = side.type_ids[side.starts]
    n = len(types)
    for kind, share in ((0, 1 / 3), (4, 1 / 3), (2, 1 / 6), (3, 1 / 6)):
        assert abs((types == kind).mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
    labels = side.aux["pair"][side.starts]
    assert ((labels > 0) == (types == 0)).all()
    budget = np.maximum(np.round(0.15 * side.lengths), 1)
    assert (np.add.reduceat(side.loss_weights, side.starts) <= budget).all()
    assert np.add.reduceat(side.loss_weights, side.starts).sum() > 0.97 * budget.sum()
    last = side.starts + side.lengths - 1
    hidden_end = side.loss_weights[last] > 0
    assert hidden_end[types == 4].any() and not hidden_end[types != 4].any()


def test_a_causal_text_is_predicted_where_it_stands():
    side = side_of(UniLM(sentence_ends=range(10, 100), shares=(0, 0, 1, 0)), count=200)
    place = ragged.index_within(side.lengths)
    assert (side.attn_order == place).all() and (side.type_ids == 2).all()
    masked = side.tokens == SPECIAL.mask
    assert (side.loss_weights[masked] == 1).all() and (side.targets[masked] != SPECIAL.mask).all()
