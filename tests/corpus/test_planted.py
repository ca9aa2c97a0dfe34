"""Real texts with planted copies: near ones are found, others stay, and clusters are those of comparing all pairs."""

import itertools
import sysconfig

import numpy as np
import pytest

from benchmarks.corpus import real_documents
from benchmarks.duplicates import KINDS, plant
from t5x_like.corpus.components import components, jaccard
from t5x_like.corpus.documents import batch_of
from t5x_like.corpus.minhash import MinHash, shingle_sets
from t5x_like.corpus.simhash import SimHash, fingerprint


@pytest.fixture(scope="module")
def planted():
    texts = real_documents([sysconfig.get_paths()["stdlib"]], 3_000_000)
    assert len(texts) > 6 * len(KINDS)
    return plant([text[:6000] for text in texts])


@pytest.fixture(scope="module")
def every_pair(planted):
    """(all pairs of documents, their true Jaccard) by comparing all with all."""
    pairs = np.array(list(itertools.combinations(range(len(planted.texts)), 2)))
    flat, ends = shingle_sets(planted.texts, 5)
    return pairs, jaccard(pairs, np.split(flat, ends)[:-1])


def gone(step, texts):
    keys = step.keys(batch_of([{"text": text, "file": 0, "row": i} for i, text in enumerate(texts)]))
    return set(step.choose(keys)[0]["row"].tolist())


def test_min_hash_takes_what_all_pairs_say_save_pairs_far_below_nine_tenths(planted, every_pair):
    """At or above .9 nothing is missed and below the threshold nothing is taken: whatever stays or goes between."""
    pairs, similarity = every_pair
    count = len(planted.texts)
    taken = gone(MinHash(keep="source"), planted.texts)
    for least, compare in ((0.9, set.issubset), (0.7, set.issuperset)):
        root = components(count, lambda least=least: iter([pairs[similarity >= least]]))
        by_all_pairs = set(np.flatnonzero(root != np.arange(count)).tolist())
        assert compare(by_all_pairs, taken) and len(by_all_pairs) > 30
    near = {int(b) for (_, b), kind in zip(planted.pairs, planted.kinds, strict=True) if KINDS[kind] == "exact"}
    assert near <= taken


def test_sim_hash_takes_exactly_what_all_pairs_within_three_bits_say(planted, every_pair):
    pairs, _ = every_pair
    count = len(planted.texts)
    flat, ends = shingle_sets(planted.texts, 3)
    sets = np.split(flat, ends)[:-1]
    prints = np.array([fingerprint(one) for one in sets], np.uint64)
    near = pairs[np.bitwise_count(prints[pairs[:, 0]] ^ prints[pairs[:, 1]]) <= 3]
    near = near[jaccard(near, sets) >= 0.5]
    root = components(count, lambda: iter([near]))
    expected = set(np.flatnonzero(root != np.arange(count)).tolist())
    assert gone(SimHash(keep="source"), planted.texts) == expected and len(expected) > 20
