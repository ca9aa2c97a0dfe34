import numpy as np

from t5x_like.data import chunking, ragged


def make(*sequences):
    return ragged.from_list(sequences)


def lists(value):
    return [array.tolist() for array in ragged.to_list(value)]


def test_lists_come_back():
    assert lists(make([5, 6], [], [7])) == [[5, 6], [], [7]]


def test_taking_gathers_whole_sequences_in_order():
    assert lists(ragged.take(make([1], [2, 3], [], [4, 5, 6]), np.array([3, 0, 2]))) == [[4, 5, 6], [1], []]


def test_appending_to_some_leaves_the_others():
    assert lists(ragged.append(make([1, 2], [], [3]), 9)) == [[1, 2, 9], [9], [3, 9]]
    assert lists(ragged.append(make([1, 2], [], [3]), 9, np.array([False, True, True]))) == [[1, 2], [9], [3, 9]]


def test_keeping_drops_values_and_no_sequence():
    mask = np.array([True, False, False, True, True])
    assert lists(ragged.keep(make([1, 2], [3], [4, 5]), mask)) == [[1], [], [4, 5]]


def test_pairs_are_joined_in_order():
    assert lists(ragged.join_pairs(make([1], [2, 3]), make([4, 5], []))) == [[1, 4, 5], [2, 3]]


def test_truncation_keeps_the_head():
    assert lists(ragged.truncate(make([1, 2, 3], [4]), 2)) == [[1, 2], [4]]


def test_split_documents_keeps_documents_apart_and_loses_nothing():
    pieces = chunking.split_documents(make([1, 2, 3, 4, 5], [], [6, 7], [8, 9, 10]), 3)
    assert lists(pieces) == [[1, 2, 3], [4, 5], [6, 7], [8, 9, 10]]


def test_concatenated_documents_fill_every_piece_but_the_last():
    assert lists(chunking.concatenate_and_split(make([1, 2], [3, 4, 5]), 2)) == [[1, 2], [3, 4], [5]]


def test_windows_predict_every_token_but_the_first_once():
    before, pieces = chunking.windows(np.arange(1, 7, dtype=np.int32), 2)
    assert before.tolist() == [1, 3, 5]
    assert lists(pieces) == [[2, 3], [4, 5], [6]]
    before, pieces = chunking.windows(np.arange(1, dtype=np.int32), 2)
    assert len(before) == 0 and lists(pieces) == []
