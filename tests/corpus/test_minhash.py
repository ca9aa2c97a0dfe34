"""Near duplicates: the estimate, what banding finds by theory, and the same clusters however pairs come."""

import random

import numpy as np
import pyarrow as pa

from t5x_like.corpus.documents import batch_of
from t5x_like.corpus.minhash import MinHash, candidates, components, shingles, word_hashes, words_of


def word(rng: random.Random) -> str:
    """Of letters: all digits count as 0."""
    return "".join(rng.choices("abcdefghij", k=6))


def text(rng: random.Random, words: int) -> list[str]:
    return [word(rng) for _ in range(words)]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def pairs(count, words=200, seed=0):
    """Pairs of texts of every similarity: the second one has some runs of words replaced."""
    rng = random.Random(seed)
    for _ in range(count):
        one = text(rng, words)
        other = list(one)
        for _ in range(rng.randrange(1, 12)):
            other[rng.randrange(words)] = word(rng)
        yield shingles(" ".join(one), 5), shingles(" ".join(other), 5)


def test_a_word_has_one_hash_wherever_it_stands():
    alone = word_hashes(b"word")[0]
    hashes = word_hashes(b"a word in words word")
    assert hashes[1] == hashes[4] == alone and len(set(hashes.tolist())) == 4
    assert len(word_hashes(b"")) == 0 and len(shingles("?!", 5)) == 0


def test_what_is_compared_are_words_without_case_punctuation_and_digits():
    assert words_of("It's 42 -- and_so, ÉTÉ!").decode().split() == ["it", "s", "00", "and", "so", "été"]
    assert words_of("It's 42 -- AND_so!").split() == [b"it", b"s", b"00", b"and", b"so"]
    assert words_of("١٢ 一二").decode().split() == ["00", "一二"]


def test_the_share_of_equal_minima_is_the_jaccard_similarity():
    """Over 200 pairs of 1,008 minima the mean error is 0 within 4 standard errors (0.0012 each, from the binomial)."""
    finder = MinHash(bands=126, rows=8)
    errors = []
    for a, b in pairs(200):
        errors.append((finder.signature(a) == finder.signature(b)).mean() - jaccard(a, b))
    assert abs(np.mean(errors)) < 0.004
    assert np.std(errors) < 1.3 * np.sqrt(0.25 / 1008)


def test_banding_finds_pairs_as_often_as_theory_says_and_all_that_are_nearly_alike():
    finder, found, expected, near = MinHash(), [], [], []
    for a, b in pairs(1500, words=120):
        bands = [finder.signature(s).reshape(14, 8) for s in (a, b)]
        hit = (bands[0] == bands[1]).all(axis=1).any()
        similarity = jaccard(a, b)
        found.append(hit)
        expected.append(1 - (1 - similarity**8) ** 14)
        if similarity >= 0.9:
            near.append(hit)
    variance = sum(p * (1 - p) for p in expected)
    assert abs(sum(found) - sum(expected)) < 4 * np.sqrt(variance) + 1
    assert len(near) > 20 and all(near)


def table_of(finder, texts):
    return finder.keys(batch_of([{"text": t, "file": 0, "row": i} for i, t in enumerate(texts)]))


def test_of_a_cluster_the_longest_stays_and_what_is_not_alike_stays_too():
    rng = random.Random(1)
    base = text(rng, 300)
    changed = [*base[:150], "other", *base[151:]]
    longer = [*base, "and", "more"]
    texts = [" ".join(t) for t in (base, changed, longer, text(rng, 300), text(rng, 300))] + ["", "", "!"]
    finder = MinHash()
    gone, counts = finder.choose(table_of(finder, texts))
    assert gone["row"].tolist() == [0, 1] and counts["near duplicate"] == 2
    gone, _ = MinHash(keep="earliest").choose(table_of(finder, texts))
    assert gone["row"].tolist() == [1, 2]


def test_documents_in_another_order_give_the_same_survivors():
    rng = random.Random(2)
    texts = []
    for _ in range(30):
        base = text(rng, 100)
        texts += [" ".join(base), " ".join([*base[:50], word(rng), *base[51:]])]
    finder = MinHash(keep="longest")
    keys = table_of(finder, texts)
    order = np.random.default_rng(0).permutation(len(texts))
    one, _ = finder.choose(keys)
    other, _ = finder.choose(keys.take(pa.array(order)))
    assert sorted(one.tolist()) == sorted(other.tolist()) and len(one) == 30


def test_candidates_and_components():
    bands = np.array([[1, 9], [1, 8], [2, 8], [3, 7], [1, 6]], np.uint64)
    left, right = candidates(bands)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (0, 4), (1, 2), (1, 4)]
    assert components(5, left, right).tolist() == [0, 0, 0, 3, 0]
    chain = np.arange(999)
    assert (components(1000, chain, chain + 1) == 0).all()
    assert components(3, chain[:0], chain[:0]).tolist() == [0, 1, 2]
