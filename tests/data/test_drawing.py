import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.drawing import ByText, uniform
from t5x_like.data.ragged import Ragged

rng = np.random.default_rng(0)
LENGTHS = rng.integers(0, 200, 2_000)
TEXTS = Ragged(rng.integers(0, 30_000, LENGTHS.sum()).astype(np.int32), LENGTHS)
OWNERS = np.repeat(np.arange(len(LENGTHS)), LENGTHS)


def drawn(texts, versions, num_calls=1):
    by_text = ByText.of(texts, versions)
    owners = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
    return [uniform(by_text, owners) for _ in range(num_calls)]


def test_a_text_has_the_same_numbers_alone_and_in_any_company():
    whole = drawn(TEXTS, np.zeros(len(LENGTHS), np.int64), num_calls=2)
    for rows in ([7], [1999, 3, 3, 500], list(range(100, 200))):
        some = drawn(ragged.take(TEXTS, np.array(rows)), np.zeros(len(rows), np.int64), num_calls=2)
        for numbers, of_all in zip(some, whole, strict=True):
            expected = np.concatenate([of_all[row == OWNERS] for row in rows])
            np.testing.assert_array_equal(numbers, expected)


def test_another_version_another_call_another_text_and_another_order_have_other_numbers():
    zeros = np.zeros(len(LENGTHS), np.int64)
    first, second = drawn(TEXTS, zeros, num_calls=2)
    assert not np.intersect1d(first, second).size
    assert not np.intersect1d(first, drawn(TEXTS, zeros + 1)[0]).size
    turned = Ragged(np.array([1, 2, 3, 3, 2, 1], np.int32), np.array([3, 3]))
    a, b = drawn(turned, zeros[:2])[0].reshape(2, 3)
    assert not np.intersect1d(a, b).size


@pytest.mark.parametrize("version", range(3))
def test_the_numbers_are_uniform_and_neighbours_are_independent(version):
    """200,000 numbers: a share that is off by 0.003, or a correlation of 0.01, would be seen (4.5 deviations)."""
    numbers = drawn(TEXTS, np.full(len(LENGTHS), version))[0]
    shares = np.histogram(numbers, bins=10, range=(0, 1))[0] / len(numbers)
    assert np.abs(shares - 0.1).max() < 4.5 * (0.09 / len(numbers)) ** 0.5
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 4.5 * len(numbers) ** -0.5
    firsts = numbers[np.unique(OWNERS, return_index=True)[1]]
    assert abs(firsts.mean() - 0.5) < 4.5 * (1 / 12 / len(firsts)) ** 0.5
