"""Near duplicates: the estimate, what banding finds by theory, and the same clusters however pairs come."""

import random

import numpy as np
import pyarrow as pa
import pytest

from t5x_like.corpus.components import candidates, components
from t5x_like.corpus.documents import batch_of
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.minhash import MinHash, shingles, word_hashes, words_of


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
    assert words_of("١٢ 一二, ที่นี่").decode().split() == ["00", "一", "二", "ท", "น"]


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
    assert gone["row"].tolist() == [0, 1] and counts["pairs alike"] == 3
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


def test_candidates_come_once_and_components_are_named_by_their_first():
    bands = np.array([[1, 9], [1, 8], [2, 8], [3, 7], [1, 8]], np.uint64)
    pairs = np.concatenate(list(candidates(bands)))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (0, 4), (1, 2), (1, 4), (2, 4)]
    assert components(5, lambda: iter([pairs])).tolist() == [0, 0, 0, 3, 0]
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
    for blocks in ([chain], [chain[::-1]], np.array_split(chain[np.random.default_rng(0).permutation(999)], 7)):
        assert (components(1000, lambda blocks=blocks: iter(blocks)) == 0).all()
    assert components(3, lambda: iter([])).tolist() == [0, 1, 2]


def test_a_large_bucket_gives_enough_pairs_to_connect_it():
    pairs = np.concatenate(list(candidates(np.zeros((200, 1), np.uint64))))
    assert len(pairs) < 400 and (components(200, lambda: iter([pairs])) == 0).all()


def test_a_new_dump_loses_what_an_earlier_one_had_and_its_index_holds_both(tmp_path):
    rng = random.Random(3)
    bases = [text(rng, 100) for _ in range(8)]
    first = [" ".join(base) for base in bases[:5]]
    second = [" ".join([*base[:50], word(rng), *base[51:]]) + " end" for base in bases[3:]]
    for step in (MinHash, ExactDuplicates):
        one, two, three = (str(tmp_path / f"{step.__name__}{i}") for i in range(3))
        step(index=one).choose(table_of(step(), first))
        again = step(earlier=[one], index=two)
        gone, _ = again.choose(table_of(again, [*second, first[0]]))
        assert gone["row"].tolist() == ([0, 1, 5] if step is MinHash else [5])
        last = step(earlier=[two], index=three)
        assert len(last.choose(table_of(last, [*first, *second]))[0]) == 10
    with pytest.raises(FileNotFoundError, match="no such index"):
        MinHash(earlier=["nowhere"])
    with pytest.raises(ValueError, match="another kind of step"):
        MinHash(earlier=[one]).choose(table_of(MinHash(), first))
