import numpy as np
import pytest

from t5x_like.data import infilling, ragged, replacing
from t5x_like.data.ragged import Ragged
from t5x_like.objectives.bart import Bart
from tests.golden.released_code import RELEASED


def test_infilling_hides_as_much_as_the_reference_does():
    """fairseq's: a share of tokens that is off by 0.005, or half a mask a text, would be seen."""
    n, given, golden = 2_000, RELEASED["fairseq"]["inputs"], RELEASED["fairseq"]["found"]
    words = given["words"]
    tokens = Ragged(np.tile(np.arange(1, words + 1, dtype=np.int32), n), np.full(n, words))
    ratio, mean_span = given["mask"], given["poisson_lambda"]
    found = infilling.infill(np.random.default_rng(0), tokens, ratio=ratio, mean_span=mean_span, mask_token=0)
    num_masks = (found.values == 0).sum() / n
    gone = 1 - (found.values > 0).sum() / len(tokens.values)
    assert abs(gone - golden["tokens_gone"]) < 0.005
    assert abs(num_masks - golden["masks"]) < 0.5
    for text in ragged.to_list(found)[:50]:
        assert (np.diff(text[text > 0]) > 0).all()  # what is left keeps its order


def test_span_lengths_are_poisson_and_add_up_to_the_budget():
    budgets = np.full(5_000, 120)
    spans = infilling.span_lengths(np.random.default_rng(0), budgets, 3.0)
    assert (np.maximum(spans, 0).sum(axis=1) == budgets).all()
    drawn = spans[:, :30]  # far from the last span, which is cut
    shares = np.bincount(drawn[drawn >= 0], minlength=12)[:6] / (drawn >= 0).sum()
    np.testing.assert_allclose(shares, [0.0498, 0.1494, 0.2240, 0.2240, 0.1680, 0.1008], atol=0.005)


def test_no_budget_no_spans():
    assert (infilling.span_lengths(np.random.default_rng(0), np.array([0, 0]), 3.0) == -1).all()


@pytest.mark.parametrize(("ratio", "count"), [(0.3, 2), (0.0, 0), (1.0, 6), (0.01, 1)])
def test_a_share_of_tokens_is_rounded_up(ratio, count):
    assert infilling.chosen(np.random.default_rng(0), np.array([6, 0]), ratio=ratio).sum() == count


def sentences(seed, share):
    tokens = ragged.from_list([[1, 2, 9, 3, 9, 4, 5], [6, 9]])
    found = infilling.permute_sentences(np.random.default_rng(seed), tokens, np.array([9]), share=share)
    return [part.tolist() for part in ragged.to_list(found)]


def test_sentences_change_places_whole_and_stay_in_their_text():
    seen = {tuple(sentences(seed, 1.0)[0]) for seed in range(200)}
    a, b, c = (1, 2, 9), (3, 9), (4, 5)
    assert seen == {x + y + z for x, y, z in [(a, b, c), (a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)]}
    assert all(sentences(seed, 1.0)[1] == [6, 9] for seed in range(20))
    assert all(sentences(seed, 0.0)[0] == [1, 2, 9, 3, 9, 4, 5] for seed in range(20))


def test_a_single_token_behind_the_last_full_stop_stays_there():
    tokens = ragged.from_list([[1, 9, 2, 9, 3]])
    for seed in range(20):
        found = infilling.permute_sentences(np.random.default_rng(seed), tokens, np.array([9]), share=1.0)
        assert found.values[-1] == 3


def test_rotation_begins_at_every_token_alike():
    n = 12_000
    tokens = Ragged(np.tile(np.arange(6, dtype=np.int32), n), np.full(n, 6))
    found = infilling.rotate(np.random.default_rng(0), tokens, share=1.0).values.reshape(n, 6)
    assert ((found - found[:, :1]) % 6 == np.arange(6)).all()
    # The offset is uniform on 0 ... 6, and 0 and 6 are one place.
    np.testing.assert_allclose(np.bincount(found[:, 0]) / n, [2 / 7, *[1 / 7] * 5], atol=4 * (0.2 / n) ** 0.5)
    np.testing.assert_array_equal(infilling.rotate(np.random.default_rng(0), tokens, share=0.0).values, tokens.values)


def test_inserted_tokens_stand_anywhere():
    n = 8_000
    tokens = Ragged(np.tile(np.array([1, 2, 3], np.int32), n), np.full(n, 3))
    found = replacing.insert(np.random.default_rng(0), tokens, np.ones(n, np.int64), 9).values.reshape(n, 4)
    assert np.abs((found == 9).sum(0) - n / 4).max() < 4 * (n * 3 / 16) ** 0.5


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match="mask_ratio 30 is a share"):
        Bart(mask_ratio=30)
    with pytest.raises(ValueError, match="noise 'infil'"):
        Bart(noise="infil")
