"""SimHash: every pair within so many bits is found, nothing else goes, and light edits are near."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from t5x_like.corpus import components
from t5x_like.corpus.minhash import shingles
from t5x_like.corpus.simhash import SimHash, all_equal_pairs, candidates, fingerprint
from tests.corpus.test_minhash import table_of, text, word


def with_bits_turned(value: int, bits) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def found(values, distance):
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *candidates(np.array(values, np.uint64), distance)])
    assert (pairs[:, 0] < pairs[:, 1]).all()
    return [tuple(pair) for pair in pairs.tolist()]


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 5])
def test_every_pair_within_the_distance_is_a_candidate_once(distance):
    rng = random.Random(distance)
    base = [rng.getrandbits(64) for _ in range(40)]
    near = [with_bits_turned(v, rng.sample(range(64), rng.randrange(1, distance + 1))) for v in base if distance]
    values = [*base, *near]
    pairs = found(values, distance)
    assert len(set(pairs)) == len(pairs)
    every = itertools.combinations(range(len(values)), 2)
    close = {(i, j) for i, j in every if (values[i] ^ values[j]).bit_count() <= distance}
    assert close <= set(pairs) and len(close) == len(near)
    assert len(pairs) < len(close) + 40  # few others: they agree on half of all bits


def test_pairs_that_differ_in_any_three_bits_are_candidates():
    """One in 27 of the 41,664 choices of three bits, each against one fingerprint."""
    base = 0x0123456789ABCDEF
    values = [base, *(with_bits_turned(base, bits) for bits in itertools.combinations(range(64), 3))]
    values = values[:: len(values) // 1500]
    assert {(0, j) for j in range(1, len(values))} <= set(found(values, 3))


def test_equal_fingerprints_are_connected_and_not_all_compared():
    assert sorted(found([7] * 500, 3)) == [(0, j) for j in range(1, 500)]
    assert found([], 3) == []


def test_all_pairs_of_large_groups_come_in_blocks(monkeypatch):
    monkeypatch.setattr(components, "BLOCK", 100)
    blocks = list(all_equal_pairs(np.array([5] * 60 + [6] + [5] * 3)))
    assert max(map(len, blocks)) < 200 and sum(map(len, blocks)) == 63 * 62 // 2
    assert all((block < 60) | (block > 60) for part in blocks for block in part.ravel())


def test_a_bit_is_that_of_the_majority():
    hashes = shingles("one two three four five six seven", 1)
    assert fingerprint(hashes) == fingerprint(hashes[::-1]) and fingerprint(hashes[:0]) == 0
    each = [fingerprint(hashes[i : i + 1]) for i in range(7)]
    for bit in range(64):
        assert (fingerprint(hashes) >> bit & 1) == (sum(one >> bit & 1 for one in each) > 3.5)


def test_light_edits_are_near_and_other_texts_far():
    """Of 200 texts of 300 words with one of them replaced most lie within 3 bits; of others none does."""
    rng = random.Random(0)
    texts = [text(rng, 300) for _ in range(200)]
    edited = [[*t[:150], word(rng), *t[151:]] for t in texts]
    own = [fingerprint(shingles(" ".join(t), 3)) for t in texts]
    bits = [(a ^ fingerprint(shingles(" ".join(t), 3))).bit_count() for a, t in zip(own, edited, strict=True)]
    assert np.mean(np.array(bits) <= 3) > 0.5
    others = [(a ^ b).bit_count() for a, b in itertools.combinations(own, 2)]
    assert min(others) > 8 and abs(np.mean(others) - 32) < 0.5


def test_of_near_copies_one_stays_and_what_only_shares_bits_stays_too():
    rng = random.Random(1)
    base = text(rng, 300)
    texts = [base, [*base, "end"], text(rng, 300)]
    step = SimHash()
    keys = table_of(step, [*map(" ".join, texts), "", "!"])
    gone, counts, *_ = step.choose(keys)
    assert gone["row"].tolist() == [0] and counts["pairs alike"] == 1
    # The same bits, other words: the check of true similarity keeps both.
    values = keys.column("fingerprint").to_numpy().copy()
    values[2] = values[0]
    place = keys.schema.get_field_index("fingerprint")
    forged = keys.set_column(place, "fingerprint", pa.array(values))
    assert step.choose(forged)[0]["row"].tolist() == [0]
    assert SimHash(threshold=0.0).choose(forged)[0]["row"].tolist() == [0]


def test_a_new_dump_loses_what_an_earlier_one_had(tmp_path):
    rng = random.Random(2)
    bases = [text(rng, 200) for _ in range(4)]
    index = str(tmp_path / "index")
    SimHash(index=index).choose(table_of(SimHash(), [" ".join(base) for base in bases[:2]]))
    step = SimHash(earlier=[index])
    gone, *_ = step.choose(table_of(step, [" ".join(base).upper() + "!" for base in bases[1:]]))
    assert gone["row"].tolist() == [0]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="distance is 0 to 7 bits"):
        SimHash(distance=8)
    with pytest.raises(ValueError, match="choose one of"):
        SimHash(keep="mine")
