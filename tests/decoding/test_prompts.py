import numpy as np
import pytest

from t5x_like.data import rendering
from t5x_like.data.examples import Examples
from t5x_like.data.ragged import Ragged
from t5x_like.data.rows import lay_out, to_features
from t5x_like.decoding import prompts
from t5x_like.features import Features
from t5x_like.vocabularies.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, eos=1, unk=2)


def trained_row(render, inputs, targets, length=8) -> Features:
    """What the pipeline makes of one example."""
    ragged = [
        None if ids is None else Ragged(np.array(ids, np.int32), np.array([len(ids)])) for ids in (inputs, targets)
    ]
    sides = [
        to_features(*lay_out([side], np.zeros(1, np.int64), 1, [length]))
        for side in render(Examples(*ragged, np.zeros(1, np.int32)))
    ]
    return sides[-1]._replace(encoder=sides[0]) if len(sides) == 2 else sides[0]


CASES = {
    "InEncoder": trained_row(rendering.encoder_decoder, [5, 6, 1], [8, 9, 1]),
    "InPrefix": trained_row(rendering.decoder_only, [5, 6, 1], [8, 9, 1]),
    "InText": trained_row(rendering.decoder_only, None, [5, 6, 8, 9, 1]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_scored_is_what_the_pipeline_trains_on(name):
    row = CASES[name]
    arrangement = prompts.arrangement_of(row, SPECIAL)
    assert type(arrangement).__name__ == name
    scored = arrangement.scored([[5, 6]], [[8, 9, 1]])

    def same(a: Features, b: Features):
        length = int((a.segment_ids > 0).sum())
        for field in ("tokens", "targets", "segment_ids", "positions", "attn_order"):
            one, other = getattr(a, field), getattr(b, field)
            if one is not None:
                np.testing.assert_array_equal(one[:, :length], other[:, :length], err_msg=field)
                assert not other[:, length:].any()
        if a.encoder is not None:
            same(a.encoder, b.encoder)

    same(row, scored)
    assert scored.loss_weights.sum() == 3 and (scored.targets * scored.loss_weights).sum() == 8 + 9 + 1


@pytest.mark.parametrize("name", CASES)
def test_a_prompt_is_the_beginning_of_what_is_scored(name):
    arrangement = prompts.arrangement_of(CASES[name], SPECIAL)
    given = [[5, 6], [7]]
    prompt, scored = arrangement.prompt(given), arrangement.scored(given, [[1], [8, 9, 1]])
    for row in range(2):
        length = int((prompt.segment_ids[row] > 0).sum())
        for field in ("tokens", "positions", "attn_order"):
            np.testing.assert_array_equal(getattr(prompt, field)[row, :length], getattr(scored, field)[row, :length])


def test_lengths_are_rounded_up_so_that_few_programs_are_compiled():
    assert [prompts.round_up(n) for n in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
    assert prompts.side([[1] * 5, [1]], [np.arange(5), np.arange(1)]).tokens.shape == (2, 8)
