import itertools

import numpy as np
import pytest

from t5x_like.data import masking, ragged


def test_sentinels_replace_spans_as_in_the_released_t5_code():
    """t5 0.9.4, random_spans_noise_mask with seeds [[1, 2], [3, 4]], density 0.3, length 20, vocabulary 100."""
    mask = np.array([c == "1" for c in "00001111000000000011"])
    tokens = ragged.from_list([np.arange(1, 21)])
    sentinels = np.arange(99, 89, -1)
    inputs = masking.spans_to_sentinels(tokens, mask, sentinels).values
    targets = masking.spans_to_sentinels(tokens, ~mask, sentinels).values
    assert inputs.tolist() == [1, 2, 3, 4, 99, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 98]
    assert targets.tolist() == [99, 5, 6, 7, 8, 98, 19, 20]


def test_spans_end_at_the_end_of_their_sequence():
    tokens = ragged.from_list([[1, 2], [3, 4], [5]])
    mask = np.array([False, True, True, False, True])
    replaced = masking.spans_to_sentinels(tokens, mask, np.array([99, 98]))
    assert [array.tolist() for array in ragged.to_list(replaced)] == [[1, 99], [99, 4], [99]]


def test_more_spans_than_sentinels_is_an_error():
    tokens = ragged.from_list([[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="2 spans in one sequence, but the vocabulary has 1 sentinels"):
        masking.spans_to_sentinels(tokens, np.array([False, True, False, True]), np.array([99]))


@pytest.mark.parametrize(
    ("length", "density", "mean", "noise", "spans"),
    [
        (568, 0.15, 3, 85, 28),
        (588, 0.15, 8, 88, 11),
        (766, 0.5, 3, 383, 128),
        (600, 0.15, 64, 90, 1),
        (2, 0.15, 3, 1, 1),
    ],
)
def test_noise_counts_equal_t5(length, density, mean, noise, spans):
    assert masking.noise_counts(length, density, mean) == (noise, spans)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 568])
def test_every_sequence_has_its_exact_share_of_noise_and_begins_kept(length):
    lengths = np.array([length, length, 5, 1])
    mask = masking.random_spans(np.random.default_rng(0), lengths, density=0.15, mean_span=3.0)
    first = mask[:length]
    noise, spans = masking.noise_counts(length, 0.15, 3.0) if length > 1 else (0, 0)
    assert first.sum() == noise
    assert masking.starts_of_spans(np.array([length]), first).sum() == spans
    assert not first[0] and (length == 1 or first[-1])


def test_compositions_are_uniform():
    """All C(6, 2) = 15 ways to write 7 as 3 parts; 30,000 draws see a deviation of 10 % in one of them at p < 1e-4."""
    draws = masking.compositions(np.random.default_rng(1), 30_000, 7, 3)
    assert (draws.sum(axis=1) == 7).all() and (draws > 0).all()
    ways = {parts: 0 for parts in itertools.product(range(1, 6), repeat=3) if sum(parts) == 7}
    for row in map(tuple, draws.tolist()):
        ways[row] += 1
    expected = 30_000 / len(ways)
    chi_squared = sum((count - expected) ** 2 / expected for count in ways.values())
    assert len(ways) == 15 and chi_squared < 36.1  # 14 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("num_places", "count"), [(6, 3), (12, 2), (20, 2), (7, 0), (5, 5)])
def test_sets_of_places_are_uniform_however_they_are_drawn(num_places, count):
    """12 and 20 places are drawn with repetition first, 6 by keys; 30,000 draws see one set 10 % off at p < 1e-4."""
    ways = {places: 0 for places in itertools.combinations(range(num_places), count)}
    for row in map(tuple, masking.distinct_places(np.random.default_rng(2), 30_000, num_places, count).tolist()):
        ways[row] += 1
    expected, freedom = 30_000 / len(ways), len(ways) - 1
    chi_squared = sum((found - expected) ** 2 / expected for found in ways.values())
    assert chi_squared <= freedom + 3.1 * (2 * freedom) ** 0.5 + 4  # p below 0.001


@pytest.mark.parametrize(("density", "low"), [(0.5, 1), (0.25, 256)])
def test_prefix_lengths_are_uniform_from_the_low_end(density, low):
    """T5's golden at 512 tokens: 0.25 gives prefixes of 256 ... 511, mean near 383.5 (standard error 0.5 at 20,000)."""
    prefix = masking.random_prefix(np.random.default_rng(0), np.full(20_000, 512), density=density)
    assert (prefix.min(), prefix.max()) == (low, 511)
    assert abs(prefix.mean() - (low + 511) / 2) < 4 * (511 - low) / 12**0.5 / 20_000**0.5
