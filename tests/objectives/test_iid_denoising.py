import numpy as np
import pytest

from t5x_like.data import ragged, replacing
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives import iid_denoising
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.vocabularies.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, eos=1, unk=2, sentinels=tuple(range(99, 79, -1)))
CONTEXT = Context({"inputs": 512, "targets": 512}, SPECIAL, 100)
TOKENS = Ragged(np.array([11, 12, 13, 14, 15, 16], np.int32), np.array([6]))
MASK = np.array([False, True, True, False, True, False])


@pytest.mark.parametrize(
    ("style", "inputs", "targets"),
    [
        ("unique_sentinels", [11, 99, 14, 98, 16], [99, 12, 13, 98, 15, 97]),
        ("drop", [11, 14, 16], [12, 13, 15]),
        ("mass", [11, 99, 99, 14, 99, 16], [11, 12, 13, 14, 15, 16]),
    ],
)
def test_each_style_hides_and_asks_as_t5_does_with_the_same_mask(style, inputs, targets):
    made = iid_denoising._STYLES[style](np.random.default_rng(0), TOKENS, MASK, CONTEXT)
    assert [side.values.tolist() for side in made] == [inputs, targets]


def test_noise_at_the_start_has_no_sentinel_in_the_targets_as_in_the_released_code():
    inputs, targets = iid_denoising._unique_sentinels(None, TOKENS, ~MASK, CONTEXT)
    assert inputs.values.tolist() == [99, 12, 13, 98, 15, 97]
    assert targets.values.tolist() == [11, 99, 14, 98, 16]


def corrupt(objective, num_tokens, context=CONTEXT, seed=0):
    text = np.arange(num_tokens, dtype=np.int32) % 70 + 3
    docs = Documents({"targets": Ragged(text, np.array([num_tokens]))}, np.array([True]))
    return objective.examples(np.random.default_rng(seed), docs, context)


def test_bert_style_hides_fifteen_in_a_hundred_and_a_tenth_of_those_behind_random_ordinary_tokens():
    n = 200_000
    made = corrupt(IidDenoising(style="bert"), n)
    shown, text = (side.values[side.values != SPECIAL.eos] for side in made[:2])
    num_masked, num_wrong = (shown == 99).sum(), ((shown != text) & (shown != 99)).sum()
    # 4 standard errors: 0.135 +- 0.003 and 0.015 * 76 / 77 +- 0.0011
    assert abs(num_masked / n - 0.135) < 4 * (0.135 * 0.865 / n) ** 0.5
    assert abs(num_wrong / n - 0.015 * 76 / 77) < 4 * (0.015 / n) ** 0.5
    assert set(shown.tolist()) <= {*range(3, 80), 99}


def test_a_row_never_has_more_spans_than_sentinels_or_targets_than_room():
    lengths = {"inputs": 64, "targets": 61}
    special = SpecialTokens(pad=0, eos=1, sentinels=tuple(range(99, 68, -1)))
    context, objective = Context(lengths, special, 100), IidDenoising()
    objective.check(context)
    docs = Documents({"targets": Ragged(np.full(50, 5, np.int32), np.array([50]))}, np.array([True]))

    class Alternating:
        def random(self, n, dtype=None):
            return np.arange(n) % 2.0

    made = objective.examples(Alternating(), docs, context)
    assert made.inputs.lengths.max() <= 64 and made.targets.lengths.max() <= 61


def test_too_few_sentinels_and_too_short_rows_are_refused_before_training():
    few = Context({"inputs": 512, "targets": 512}, SpecialTokens(pad=0, eos=1, sentinels=(9,)), 100)
    with pytest.raises(ValueError, match=r"can have .* spans, but the vocabulary has 1 sentinels"):
        IidDenoising().check(few)
    with pytest.raises(ValueError, match="cannot hold"):
        IidDenoising().check(few._replace(lengths={"inputs": 2, "targets": 3}))
    with pytest.raises(ValueError, match="style 'msas'"):
        IidDenoising(style="msas")


def test_shuffling_is_uniform_over_orders_and_stays_in_its_sequence():
    n = 24_000
    tokens = Ragged(np.tile(np.array([7, 8, 9, 5], np.int32), n), np.tile([3, 1], n))
    found = replacing.shuffled(np.random.default_rng(0), tokens).values.reshape(n, 4)
    assert (found[:, 3] == 5).all()
    _, counts = np.unique(found[:, :3], axis=0, return_counts=True)
    assert len(counts) == 6 and np.abs(counts - n / 6).max() < 4 * (n * 5 / 36) ** 0.5


def test_a_token_replaced_by_its_own_sequence_s_is_one_of_them_uniformly():
    n = 20_000
    tokens = ragged.from_list([[7, 8, 9, 6], [5]] * n)
    mask = np.tile([True, False, False, False, True], n)
    found = replacing.by_own(np.random.default_rng(0), tokens, mask).values.reshape(n, 5)
    assert (found[:, 1:] == [8, 9, 6, 5]).all()
    assert np.abs(np.bincount(found[:, 0], minlength=10)[6:10] - n / 4).max() < 4 * (n * 3 / 16) ** 0.5
