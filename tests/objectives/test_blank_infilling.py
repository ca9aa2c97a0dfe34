"""GLM's blank infilling: the layout of the released code, and the statistics of its spans."""

import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.features import may_attend
from t5x_like.objectives.blank_infilling import BlankInfilling, infill
from t5x_like.vocabularies.special_tokens import SpecialTokens
from tests.golden.released_code import RELEASED

MARKERS = {"sop": 900, "eop": 901, "gmask": 902, "smask": 903}
SPECIAL = SpecialTokens(pad=0, eos=904, cls=905, mask=906, markers=MARKERS)
CONTEXT = Context({"targets": 512}, SPECIAL, 1000)


def side_of(objective, *texts, seed=0):
    documents = Documents({"targets": ragged.from_list(texts)}, np.ones(len(texts), bool))
    objective.check(CONTEXT)
    return objective.examples(np.random.default_rng(seed), documents, CONTEXT)


def test_a_text_and_its_spans_are_laid_out_as_the_released_code_does():
    """Spans 14 15, 24 25 26, 5 6 7 of [ENC] 1 ... 40 eos."""
    given, golden = RELEASED["GLM"]["inputs"], RELEASED["GLM"]["found"]
    text = ragged.from_list([given["text"]])
    ranks = np.argsort(given["order"]) / 3
    side = infill(text, np.array(given["starts"]), np.array(given["lengths"]), ranks, np.array([906]), CONTEXT)
    part_a = [905, 1, 2, 3, 4, 906, *range(8, 14), 906, *range(16, 24), 906, *range(27, 41), 904]
    size = len(part_a)
    assert side.tokens.tolist() == [*part_a, *golden["read"]]
    assert side.targets[size:].tolist() == golden["hidden"]
    assert side.positions[size:, 0].tolist() == golden["places"]
    assert side.positions[size:, 1].tolist() == golden["in_blank"]
    assert side.positions[:size].tolist() == [[place, 0] for place in range(size)]
    assert side.loss_weights.tolist() == [0] * size + [1] * 11
    segments = np.ones(len(side.tokens), np.int64)
    sees = may_attend(segments, segments, side.attn_order, side.attn_order)
    expected = np.tril(np.ones_like(sees))
    expected[:, :size] = True
    assert (sees == expected).all()


def test_spans_are_poisson_of_at_least_one_token_until_the_budget_is_reached():
    """Means of 20,000 texts: a deviation of 1.5 % of the mean length would be caught (standard error 0.2 %)."""
    objective = BlankInfilling()
    pieces = ragged.from_list([np.full(300, 7)] * 20_000)
    starts, lengths = objective._blanks(np.random.default_rng(0), pieces, np.arange(20_000))
    text = starts // 300
    hidden = np.bincount(text, lengths, 20_000)
    last = np.append(np.flatnonzero(np.diff(text)), len(text) - 1)
    assert (hidden >= 45).all() and (starts + lengths <= (text + 1) * 300).all()
    apart = np.diff(starts) - lengths[:-1]
    assert (apart[np.diff(text) == 0] >= 1).all()
    first = np.append(0, last[:-1] + 1)  # lengths come in the order of their draw: the first of each text is unbiased
    assert abs(lengths[first].mean() - 3.157) < 0.047
    assert lengths.max() < 40 and lengths.min() == 1


def test_a_document_hides_its_end_and_a_sentence_task_whole_sentences():
    texts = [np.arange(10, 110) for _ in range(200)]
    side = side_of(BlankInfilling(shares=(0, 0, 1)), *texts)
    hidden = np.add.reduceat(side.loss_weights, side.starts) - 1
    assert hidden.min() >= 50 and hidden.max() <= 100 and abs(hidden.mean() - 75) < 4
    assert (side.tokens == 902).sum() == 200
    ends = (19, 39, 59, 79, 99)
    side = side_of(BlankInfilling(shares=(0, 1, 0), sentence_ends=ends), *texts)
    spans = np.add.reduceat(side.tokens == 903, side.starts)
    assert (spans >= 1).all() and (np.add.reduceat(side.loss_weights, side.starts) - spans >= 15).all()
    told = side.targets[(side.targets == 901).nonzero()[0] - 1]
    assert np.isin(told, [*ends, 109]).all()


@pytest.mark.parametrize("shares", [(1, 0, 0), (1, 1, 1)])
def test_every_text_fits_its_row_and_comes_back_whole(shares):
    texts = [np.random.default_rng(n).integers(10, 800, n) for n in (1, 2, 5, 77, 392, 1000)]
    side = side_of(BlankInfilling(shares=shares, sentence_ends=range(10, 800, 9)), *texts)
    assert side.lengths.max() <= 512
    ordinary = side.targets[side.targets < 900]
    assert sorted(ordinary.tolist()) == sorted(np.concatenate(texts).tolist())


def test_what_cannot_be_is_refused():
    for wrong in ({"shares": (1, 2)}, {"rate": 0}, {"min_share": 0}, {"shares": (0, 1, 0)}):
        with pytest.raises(ValueError):
            BlankInfilling(**wrong)
    with pytest.raises(ValueError, match="no marker 'sop'"):
        BlankInfilling().check(CONTEXT._replace(special=SpecialTokens(pad=0, eos=1, mask=2)))
