import numpy as np
import pytest

from t5x_like.data import ragged, rendering
from t5x_like.data.examples import Examples, Side


def examples(inputs, targets):
    start = np.zeros(len(targets), np.int32)
    return Examples(inputs and ragged.from_list(inputs), ragged.from_list(targets), start)


def test_a_decoder_alone_gets_the_prefix_mask_of_seqio():
    """The docstring of seqio.PrefixLMFeatureConverter 0.0.20, without its padding."""
    (side,) = rendering.decoder_only(examples([[7, 8, 5, 1], [8, 4, 9, 3, 1]], [[3, 9, 1], [4, 1]]))
    assert side.targets.tolist() == [7, 8, 5, 1, 3, 9, 1, 8, 4, 9, 3, 1, 4, 1]
    assert side.tokens.tolist() == [0, 7, 8, 5, 1, 3, 9, 0, 8, 4, 9, 3, 1, 4]
    assert side.loss_weights.tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    causal_attention = [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert (side.attn_order == 0).astype(int).tolist() == causal_attention
    assert side.attn_order.tolist() == [0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 1]


def test_without_inputs_it_is_causal_and_everything_is_predicted():
    (side,) = rendering.decoder_only(examples(None, [[5, 6, 1], [7, 1]]))
    assert side.attn_order.tolist() == [0, 1, 2, 0, 1]
    assert side.loss_weights.tolist() == [1, 1, 1, 1, 1]


def test_an_encoder_sees_itself_and_a_decoder_its_past():
    encoder, decoder = rendering.encoder_decoder(examples([[5, 6, 1]], [[8, 9, 1]]))
    assert encoder.tokens.tolist() == [5, 6, 1] and encoder.attn_order.tolist() == [0, 0, 0]
    assert decoder.tokens.tolist() == [0, 8, 9] and decoder.targets.tolist() == [8, 9, 1]
    assert decoder.attn_order.tolist() == [0, 1, 2]


def test_empty_targets_do_not_shift_into_their_neighbours():
    (side,) = rendering.decoder_only(examples([[5], [], [6]], [[], [], [7]]))
    assert side.tokens.tolist() == [0, 0, 6]


def test_what_predicts_in_place_is_a_side_already():
    side = Side(*np.zeros((4, 3), np.int32), np.array([3]))
    assert rendering.in_place(side) == rendering.decoder_only(side) == (side,)
    with pytest.raises(ValueError, match="set render = @in_place"):
        rendering.encoder_decoder(side)
    with pytest.raises(ValueError, match="predicts nothing in place: set render = @encoder_decoder"):
        rendering.in_place(examples([[5]], [[6]]))
