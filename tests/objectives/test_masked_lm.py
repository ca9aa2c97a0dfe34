"""Masked language models: how many tokens, which ones, and what becomes of them."""

import numpy as np
import pytest

from t5x_like.data import choosing, ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.entity_masking import EntityMasking
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token import ReplacedToken
from t5x_like.objectives.similar_words import SimilarWords
from t5x_like.objectives.span_boundary import SpanBoundary
from t5x_like.vocabularies.special_tokens import SpecialTokens
from tests.golden.released_code import RELEASED

V = 5000
SPECIAL = SpecialTokens(pad=0, eos=1, cls=2, separator=3, mask=4)
ALBERT = (6 / 11, 3 / 11, 2 / 11)


class Words:
    begins_word = np.random.default_rng(7).random(V) < 0.7


CONTEXT = Context({"targets": 512}, SPECIAL, V, Words())


def texts(count=2000, length=510, seed=0):
    values = np.random.default_rng(seed).integers(10, V, count * length).astype(np.int32)
    return Ragged(values, np.full(count, length))


def sides(objective, seed=0, documents=None, **features):
    text = documents or texts()
    found = {"targets": text, **features}
    return objective.examples(np.random.default_rng(seed), Documents(found, np.ones(len(text.lengths), bool)), CONTEXT)


def near(share, expected, n):
    """Within 4 standard errors: a deviation of 5 of them is caught with probability 0.84, one of 6 with 0.98."""
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


BY_COUNT = {
    "bert": MaskedLM(max_predictions=80),
    "whole words": MaskedLM(max_predictions=80, units="words"),
    "ngrams": MaskedLM(max_predictions=80, units="words", ngrams=ALBERT),
    "spanbert": SpanBoundary(),
    "electra": ReplacedToken(max_predictions=80),
}


@pytest.mark.parametrize("name", BY_COUNT)
def test_77_of_512_tokens_are_predicted(name):
    side = sides(BY_COUNT[name])
    counts = side.loss_weights.reshape(-1, 512).sum(axis=1)
    if name in ("whole words", "ngrams"):  # unless no whole unit fits
        assert counts.max() == 77 and (counts == 77).mean() > 0.98 and counts.min() > 70
    else:
        assert set(counts.tolist()) == {77.0}


@pytest.mark.parametrize(
    ("objective", "masked", "random"),
    [(MaskedLM(), 0.8, 0.1), (MaskedLM(units="words", draw="unit"), 0.8, 0.1), (SpanBoundary(), 0.8, 0.1)],
    ids=["token", "word", "span"],
)
def test_what_hidden_tokens_become(objective, masked, random):
    side = sides(objective)
    hidden = side.loss_weights > 0
    same = (side.tokens == side.targets)[hidden].mean()
    n = hidden.sum() / (1 if objective == MaskedLM() else 4)  # draws; a word has 1.4 tokens, a merged span fewer than 8
    n = n / 2 if isinstance(objective, SpanBoundary) else n
    assert hidden.sum() > 1.5e5
    assert near((side.tokens == SPECIAL.mask)[hidden].mean(), masked, n)
    assert near(same, 1 - masked - random, n)


def test_one_draw_for_a_span_and_one_for_a_word():
    side = sides(SpanBoundary(random=0.0), documents=texts(200))
    hidden = side.loss_weights > 0
    spans = choosing.runs(side.lengths, hidden)
    is_mask = np.bincount(spans.of_token[hidden], side.tokens[hidden] == SPECIAL.mask)
    assert set((is_mask / spans.lengths).tolist()) == {0.0, 1.0}


def test_words_are_hidden_whole():
    side = sides(MaskedLM(units="words"), documents=texts(300))
    begins = Words.begins_word[side.targets] | (ragged.index_within(side.lengths) <= 1)
    inside = choosing.inside(Ragged(side.targets, side.lengths))
    words = choosing.find_units(side.lengths, inside, begins)
    share = np.bincount(words.of_token[inside], side.loss_weights[inside]) / words.lengths
    assert set(share.tolist()) == {0.0, 1.0}


def test_every_token_is_as_likely():
    side = sides(MaskedLM(), documents=texts(4000, 30))
    by_place = side.loss_weights.reshape(-1, 32).mean(axis=0)
    assert by_place[0] == by_place[-1] == 0
    assert all(near(share, 5 / 30, 4000) for share in by_place[1:-1])  # round(0.15 * 32) of 30


def test_roberta_rounds_at_random_and_draws_no_special_token():
    side = sides(MaskedLM(budget="roberta", random_ids="text", masked=0.0, random=1.0), documents=texts(20000, 30))
    counts = side.loss_weights.reshape(-1, 32).sum(axis=1)
    assert set(counts.tolist()) == {4.0, 5.0} and near((counts == 5).mean(), 0.5, 20000)
    assert not np.isin(side.tokens[side.loss_weights > 0], [0, 1, 2, 3, 4]).any()
    everywhere = sides(MaskedLM(masked=0.0, random=1.0)).tokens
    assert np.isin([0, 1, 4], everywhere).all()  # BERT's code does


@pytest.mark.parametrize("shares", [ALBERT, choosing.geometric_shares(0.2, 10)], ids=["ngrams", "spans"])
def test_lengths_are_drawn_by_their_shares(shares):
    """Chi-square at p = 0.001; 200,000 draws catch a share of 0.03 that is off by 0.002."""
    n = 200_000
    drawn = choosing.lengths_by_shares(np.random.default_rng(0), np.full(n, len(shares)), shares)
    expected = n * np.array(shares)
    chi2 = ((np.bincount(drawn, minlength=len(shares) + 1)[1:] - expected) ** 2 / expected).sum()
    assert chi2 < {3: 13.8, 10: 27.9}[len(shares)]
    short = choosing.lengths_by_shares(np.random.default_rng(0), np.full(n, 2), shares)
    assert near((short == 1).mean(), shares[0] / (shares[0] + shares[1]), n)


def test_spanbert_hides_what_its_released_code_does():
    given, golden = RELEASED["SpanBERT"]["inputs"], RELEASED["SpanBERT"]["found"]
    shares = choosing.geometric_shares(given["p"], given["longest"])
    np.testing.assert_allclose(shares, golden["shares"], atol=5e-5)
    assert abs((shares * np.arange(1, 1 + given["longest"])).sum() - golden["mean_words"]) < 5e-4
    side = sides(SpanBoundary())
    assert side.loss_weights.reshape(-1, given["tokens"]).sum(axis=1).mean() == golden["predicted"]
    hidden = side.loss_weights > 0
    assert abs((side.tokens == SPECIAL.mask)[hidden].mean() - golden["masked"]) < 0.01


def test_ngrams_are_runs_of_words_and_shorter_where_the_budget_ends():
    """One word in three is two tokens long; a budget of 3 tokens in 60 is spent by runs of 1, 2 or 3 tokens."""
    n = 5000
    lengths = np.full(n, 60)
    words = choosing.find_units(lengths, np.ones(60 * n, bool), np.arange(60 * n) % 4 != 1)
    found = choosing.ngrams_within_budget(np.random.default_rng(0), words, np.full(n, 3), ALBERT)
    mask = words.mask(found)
    assert set(mask.reshape(n, 60).sum(axis=1).tolist()) == {3}
    whole = np.bincount(words.of_token, mask) / words.lengths
    assert set(whole.tolist()) == {0.0, 1.0}


def test_a_span_is_as_long_as_drawn_unless_text_or_budget_end():
    """With a budget of one span's length at most, the runs of a long text are single spans as a rule."""
    n, length = 20_000, 600
    lengths = np.full(n, length)
    words = choosing.find_units(lengths, np.ones(n * length, bool))
    mask = choosing.geometric_spans(np.random.default_rng(0), lengths, words, np.full(n, 40), np.array([0, 0, 0, 1.0]))
    runs = choosing.runs(lengths, mask)
    assert set(np.bincount(runs.sequence, runs.lengths).tolist()) == {40.0}
    assert (runs.lengths == 4).mean() > 0.85  # the rest lies side by side or over one another


def test_spans_begin_with_a_word_and_the_boundaries_are_told_as_distances():
    side = sides(SpanBoundary(), documents=texts(50))
    before, after = side.aux["span_before"], side.aux["span_after"]
    hidden = np.flatnonzero(side.loss_weights)
    told = hidden[before[hidden] > 0]
    assert (side.loss_weights[told - before[told]] == 0).all() and (side.loss_weights[told + after[told]] == 0).all()
    assert (before[side.loss_weights == 0] == 0).all() and before.max() <= 20
    first = choosing.runs(side.lengths, side.loss_weights > 0).starts
    begins = Words.begins_word[side.targets[first]] | (first % 512 == 1)
    assert begins.all()


def test_epochs_change_dynamic_masks_and_static_ones_are_ten():
    text = texts(1, 60)

    def masks(objective):
        return {sides(objective, seed, text).loss_weights.tobytes() for seed in range(200)}

    assert len(masks(MaskedLM())) == 200
    assert len(masks(MaskedLM(masks="static"))) == 10
    assert len(masks(MaskedLM(masks="static", duplicates=1))) == 1


def test_entities_are_chosen_whole_and_each_token_draws_for_itself():
    text = texts(3000, 100)
    place = ragged.index_within(text.lengths)
    entities = np.where(place % 10 < 3, 2 * (place // 10 + 1) + (place % 10 > 0), 0).astype(np.int32)
    side = sides(EntityMasking(), documents=text, entities=Ragged(entities, text.lengths))
    hidden = side.loss_weights.reshape(-1, 102)[:, 1:-1].reshape(-1, 10, 10) > 0
    assert (hidden[..., 0] == hidden[..., 1]).all() and (hidden[..., 0] == hidden[..., 2]).all()
    assert near(hidden[..., 0].mean(), 0.15, hidden[..., 0].size)
    assert near((hidden[..., 3] & hidden[..., 4]).mean(), 0.0225, hidden[..., 0].size)
    is_mask = (side.tokens == SPECIAL.mask).reshape(-1, 102)[:, 1:-1].reshape(-1, 10, 10)[..., :2][hidden[..., 0]]
    assert near((is_mask[:, 0] & is_mask[:, 1]).mean(), 0.64, len(is_mask))


def test_similar_words_stand_in_for_hidden_ones():
    text = texts(500)
    similar = Ragged(np.where(np.arange(len(text.values)) % 2, 9, 0).astype(np.int32), text.lengths)
    side = sides(SimilarWords(), documents=text, similar=similar)
    hidden = side.loss_weights > 0
    has = ragged.surround(similar, 0, 0).values > 0
    assert SPECIAL.mask not in side.tokens
    assert near((side.tokens == 9)[hidden & has].mean(), 0.8, (hidden & has).sum())
    assert near((side.tokens == side.targets)[hidden & ~has].mean(), 0.1 + 0.9 / V, (hidden & ~has).sum())


def test_electra_masks_85_percent_of_draws_with_replacement():
    side = sides(ReplacedToken())
    weights = side.loss_weights
    assert weights.max() >= 2
    once = weights == 1
    assert near((side.tokens == SPECIAL.mask)[once].mean(), 0.85, once.sum())
    assert (side.tokens == side.targets)[once & (side.tokens != SPECIAL.mask)].all()
    share = (weights > 0).reshape(-1, 512)[:, 1:-1].mean()
    assert abs(share - (1 - (1 - 1 / 510) ** 77)) < 0.001


def test_bad_settings_are_said():
    for bad, says in [
        ({"units": "word"}, "units 'word': choose one of"),
        ({"rate": 1.5}, "rate 1.5"),
        ({"masked": 0.9, "random": 0.2}, "are shares"),
        ({"ngrams": [1.0], "masks": "static"}, "ngrams"),
        ({"masks": "static", "documents": "concatenated"}, "may not be cut anew"),
    ]:
        with pytest.raises(ValueError, match=says):
            MaskedLM(**bad)
    with pytest.raises(ValueError, match="targets alone"):
        MaskedLM().check(CONTEXT._replace(lengths={"inputs": 8, "targets": 8}))
    with pytest.raises(ValueError, match="no vocabulary"):
        MaskedLM(units="words").check(CONTEXT._replace(vocabulary=None))
