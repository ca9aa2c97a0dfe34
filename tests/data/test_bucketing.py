import numpy as np
import pytest

from t5x_like.data.bucketing import batches_by_length, bucket_of


def test_every_text_comes_once_in_a_row_that_holds_it_and_no_smaller_one_would():
    lengths = np.random.default_rng(0).integers(1, 129, 1000)
    batches = list(batches_by_length(lengths, (16, 64, 128), 8))
    assert sorted(np.concatenate([batch.texts for batch in batches]).tolist()) == list(range(1000))
    assert {batch.length for batch in batches} == {16, 64, 128}
    for texts, length in batches:
        assert 1 <= len(texts) <= 8 and (np.diff(texts) > 0).all()
        assert (bucket_of(lengths[texts], (16, 64, 128)) == length).all()
    assert sum(len(batch.texts) < 8 for batch in batches) <= 3


def test_a_boundary_holds_its_own_length():
    assert bucket_of(np.array([1, 16, 17, 64, 128]), (16, 64, 128)).tolist() == [16, 16, 64, 64, 128]
    assert list(batches_by_length(np.array([], np.int64), (16,), 8)) == []


@pytest.mark.parametrize(
    "lengths, boundaries, message",
    [
        ([5, 129], (16, 128), "a text of 129 tokens is longer than the last boundary, 128"),
        ([5], (), "must rise"),
        ([5], (16, 16), "must rise"),
        ([5], (0, 16), "must rise, from 1"),
    ],
)
def test_what_cannot_be_is_refused(lengths, boundaries, message):
    with pytest.raises(ValueError, match=message):
        bucket_of(np.array(lengths), boundaries)
