"""UniLM: who sees whom, and how often each mode is drawn."""

import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.objectives.unilm import UniLM
from tests.objectives.test_pairs import SPECIAL, STOP, made


def modes(side):
    """The mode of every example, as its types tell."""
    return np.minimum(side.type_ids[side.starts], 4)


def test_modes_come_in_their_shares():
    """Six passes over the corpus; 4 standard errors of a share. A chunk of one sentence is always bidirectional."""
    found = np.concatenate([modes(made(UniLM(sentence_ends=(STOP,)), seed=seed)) for seed in range(6)])
    counts = [(found == mode).mean() for mode in (0, 4, 2, 3)]
    assert np.abs(np.array(counts) - [1 / 3, 1 / 3, 1 / 6, 1 / 6]).max() < 4 * 0.5 / np.sqrt(len(found)) + 0.02
    assert len(found) > 5000


def test_each_mode_sees_what_it_may():
    side = made(UniLM(sentence_ends=(STOP,)))
    for k, mode in enumerate(modes(side).tolist()):
        one = side.cut(k, k + 1)
        order, n = one.attn_order.tolist(), len(one.tokens)
        assert one.tokens[0] == SPECIAL.cls and one.targets[-1] == SPECIAL.separator
        separators = np.flatnonzero(one.targets == SPECIAL.separator)
        if mode == 0:
            assert order == [0] * n and one.aux["pair"][0] in (1, 2)
        elif mode == 4:
            first = separators[0]
            assert order == [max(place - first, 0) for place in range(n)] and one.aux["pair"][0] == 0
            assert one.type_ids.tolist() == [4] * (first + 1) + [5] * (n - first - 1)
        else:
            assert order == (list(range(n)) if mode == 2 else list(range(n))[::-1])
            assert len(separators) == 1 and set(one.type_ids.tolist()) == {mode}
            tokens = one.targets[1:-1]
            assert (np.diff(tokens[tokens != STOP]) <= 2 + np.diff(np.flatnonzero(tokens != STOP))).all()


def test_only_the_second_text_of_seq2seq_learns_to_end():
    side = made(UniLM(sentence_ends=(STOP,)), seed=1)
    hidden = (side.loss_weights > 0) & (side.targets == SPECIAL.separator)
    assert hidden.sum() > 50 and (side.type_ids[hidden] == 5).all()
    assert (side.lengths - 1)[np.repeat(np.arange(side.num_examples), side.lengths)[hidden]].tolist() == (
        ragged.index_within(side.lengths)[hidden].tolist()
    )


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="four, none below 0"):
        UniLM(shares=(1, 0, 0))
