import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.ul2 import TABLE_1, UL2
from t5x_like.vocabularies.special_tokens import SpecialTokens

MODES = {"R": 3, "S": 4, "X": 5}
SPECIAL = SpecialTokens(pad=0, eos=1, sentinels=tuple(range(999, 799, -1)), modes=MODES)
LENGTHS = {"inputs": 513, "targets": 512}  # one place of the inputs is the mode's


def make(objective, num_tokens, lengths=LENGTHS):
    context = Context(lengths, SPECIAL, 1000)
    objective.check(context)
    text = np.arange(num_tokens, dtype=np.int32) % 700 + 10
    docs = Documents({"targets": Ragged(text, np.array([num_tokens]))}, np.array([True]))
    return objective.examples(np.random.default_rng(0), docs, context)


@pytest.mark.parametrize(
    ("denoiser", "raw", "targets"),
    [
        (("R", 3, 0.15, 1), 568, 114),
        (("R", 8, 0.15, 1), 588, 100),
        (("X", 3, 0.5, 1), 766, 512),
        (("X", 8, 0.5, 1), 908, 512),
        (("X", 64, 0.15, 1), 600, 92),
        (("X", 64, 0.5, 1), 1006, 512),
    ],
)
def test_each_denoiser_has_the_lengths_of_the_table_and_its_mode_first(denoiser, raw, targets):
    made = make(UL2(denoisers=[denoiser]), 4 * raw)
    assert made.targets.lengths.tolist() == [targets] * 4
    assert made.inputs.values[made.inputs.starts].tolist() == [MODES[denoiser[0]]] * 4


def test_the_sequential_denoiser_predicts_a_quarter_on_average():
    made = make(UL2(denoisers=[("S", 0, 0.25, 1)]), 511 * 3000)
    # Uniform on [255, 510] prefix tokens of 511: the mean target is 128.5 and EOS, its standard error 1.35.
    assert abs(made.targets.lengths.mean() - 129.5) < 4 * 1.35
    assert not np.isin(made.inputs.values, SPECIAL.sentinels).any()


def test_modes_come_at_their_rates():
    made = make(UL2(), 700 * 14_000)
    first = made.inputs.values[made.inputs.starts]
    n = len(first)
    for mode, share in {"R": 2 / 7, "S": 1 / 7, "X": 4 / 7}.items():
        assert abs((first == MODES[mode]).mean() - share) < 4 * (share * (1 - share) / n) ** 0.5
    ul2r = make(UL2(denoisers=[("S", 0, 0.25, 0.5), ("R", 3, 0.15, 0.25), ("X", 32, 0.5, 0.25)]), 1_000_000)
    first = ul2r.inputs.values[ul2r.inputs.starts]
    assert abs((first == MODES["S"]).mean() - 0.5) < 4 * (0.25 / len(first)) ** 0.5


@pytest.mark.parametrize("lengths", [LENGTHS, {"targets": 640}])
def test_nothing_is_lost_and_rows_hold_what_is_made(lengths):
    made = make(UL2(), 12_345, lengths)
    both = made.inputs.lengths + made.targets.lengths
    if "inputs" in lengths:
        assert made.inputs.lengths.max() <= 513 and made.targets.lengths.max() <= 512
    else:
        assert both.max() <= 640
    tokens = np.concatenate([side.values for side in made[:2]])
    text = np.arange(12_345) % 700 + 10
    np.testing.assert_array_equal(np.sort(tokens[(tokens >= 10) & (tokens < 710)]), np.sort(text))
    assert len(ragged.to_list(made.inputs)) == len(made.start_tokens)


def test_what_the_vocabulary_lacks_is_said_before_training():
    with pytest.raises(ValueError, match="mode 'R' is not an item of the vocabulary"):
        UL2().check(Context(LENGTHS, SpecialTokens(pad=0, eos=1, sentinels=(9,)), 100))
    hundred = SpecialTokens(pad=0, eos=1, sentinels=tuple(range(999, 899, -1)), modes=MODES)
    with pytest.raises(ValueError, match="128 spans, but the vocabulary has 100 sentinels"):
        UL2().check(Context(LENGTHS, hundred, 1000))
    with pytest.raises(ValueError, match="at least one, each with a rate above 0"):
        UL2(denoisers=[("R", 3, 0.15, 0)])
    assert len(TABLE_1) == 7
