"""Near duplicates: the estimate, what banding finds by theory, and the same clusters however pairs come."""

import random

import numpy as np
import pyarrow as pa
import pytest

from t5x_like.corpus import minhash
from t5x_like.corpus.components import Lists, Rows, candidates, components
from t5x_like.corpus.documents import batch_of
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.minhash import MinHash, shingle_sets, shingles, word_hashes, words_in, words_of
from t5x_like.corpus.simhash import SimHash


def word(rng: random.Random) -> str:
    """Of letters: all digits count as 0."""
    return "".join(rng.choices("abcdefghij", k=6))


def text(rng: random.Random, words: int) -> list[str]:
    return [word(rng) for _ in range(words)]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def signature(finder: MinHash, hashes: np.ndarray) -> np.ndarray:
    """Of one set: uint32 [bands, rows]."""
    return finder.signatures(hashes, np.array([len(hashes)]))[0]


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


def test_words_of_any_length_have_hashes_of_their_own():
    """Lengths around those of a lane and of a long word; of each length words that differ in one byte."""
    words = [b"x" * size for size in range(1, 80)]
    words += [b"x" * at + b"y" + b"x" * (size - at - 1) for size in range(1, 80) for at in range(size)]
    hashes = word_hashes(b"  ".join(words))
    assert len(set(hashes.tolist())) == len(set(words))
    assert all(word_hashes(b" " + one)[0] == value for one, value in zip(words[::50], hashes[::50], strict=True))
    starts, _ = words_in(b" ab  c ")
    assert starts.tolist() == [1, 5]


def test_sets_of_many_texts_are_those_of_each_and_have_one_shingle_for_each_run_of_words():
    rng = random.Random(5)
    texts = [" ".join(rng.choices("abcdef", k=size)) for size in (0, 1, 2, 4, 5, 6, 0, 300, 3, 0)]
    flat, ends = shingle_sets(texts, 5)
    sets = np.split(flat, ends)[:-1]
    runs_of_all = set()
    for one, own in zip(texts, sets, strict=True):
        words = one.split()
        runs = {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))} - {()}
        runs_of_all |= runs
        assert len(own) == len(runs) and (np.diff(own.astype(np.int64)) > 0).all()
        np.testing.assert_array_equal(own, shingles(one, 5))
    assert len(set(flat.tolist())) == len(runs_of_all)
    assert shingle_sets([], 5)[1].tolist() == []


def test_batches_of_any_size_give_the_same_keys(monkeypatch):
    rng = random.Random(6)
    texts = [" ".join(text(rng, size)) for size in (3, 900, 0, 40, 2000, 1, 300)]
    whole = table_of(MinHash(), texts)
    monkeypatch.setattr(minhash, "_AT_ONCE", 1000)
    assert table_of(MinHash(), texts).equals(whole)
    assert (
        pa.concat_tables([table_of(MinHash(), [one]) for one in texts])
        .select(["bands", "shingles"])
        .equals(whole.select(["bands", "shingles"]))
    )


@pytest.mark.parametrize("words", [8, 12, 20, 60])
def test_short_texts_are_found_as_theory_says(words):
    """Most parts of a range are empty where sets are small; what stands for them agrees as often."""
    finder, rng, hits, expected = MinHash(seed=1), random.Random(words), [], []
    for _ in range(600):
        one = text(rng, words)
        a, b = (shingles(" ".join(t), 5) for t in (one, [*one, word(rng)]))
        hits.append((signature(finder, a) == signature(finder, b)).all(axis=1).any())
        expected.append(1 - (1 - jaccard(a, b) ** 8) ** 14)
    assert abs(sum(hits) - sum(expected)) < 4 * np.sqrt(sum(p * (1 - p) for p in expected)) + 1


def test_what_is_compared_are_words_without_case_punctuation_and_digits():
    assert words_of("It's 42 -- and_so, ÉTÉ!").decode().split() == ["it", "s", "00", "and", "so", "été"]
    assert words_of("It's 42 -- AND_so!").split() == [b"it", b"s", b"00", b"and", b"so"]
    assert words_of("١٢ 一二, ที่นี่").decode().split() == ["00", "一", "二", "ท", "น"]


def test_the_share_of_equal_minima_is_the_jaccard_similarity():
    """Over 200 pairs of 1,008 minima the mean error is 0 within 4 standard errors (0.0012 each, from the binomial)."""
    finder = MinHash(bands=126, rows=8)
    errors = []
    for a, b in pairs(200):
        errors.append((signature(finder, a) == signature(finder, b)).mean() - jaccard(a, b))
    assert abs(np.mean(errors)) < 0.004
    assert np.std(errors) < 1.3 * np.sqrt(0.25 / 1008)


def test_banding_finds_pairs_as_often_as_theory_says_and_all_that_are_nearly_alike():
    finder, found, expected, near = MinHash(), [], [], []
    for a, b in pairs(1500, words=120):
        bands = [signature(finder, s) for s in (a, b)]
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
    gone, counts, *_ = finder.choose(table_of(finder, texts))
    assert gone["row"].tolist() == [0, 1] and counts["pairs alike"] == 3
    gone, *_ = MinHash(keep="earliest").choose(table_of(finder, texts))
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
    one, *_ = finder.choose(keys)
    other, *_ = finder.choose(keys.take(pa.array(order)))
    assert sorted(one.tolist()) == sorted(other.tolist()) and len(one) == 30


def table_of_bands(bands: np.ndarray, pieces: int = 2) -> Rows:
    """In several chunks, one of them empty."""
    parts = [*np.array_split(bands, pieces), bands[:0]]
    chunks = [pa.FixedSizeListArray.from_arrays(pa.array(part.ravel(), pa.uint64()), bands.shape[1]) for part in parts]
    return Rows(pa.chunked_array(chunks))


def test_columns_are_read_where_their_chunks_lie():
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 9, (50, 3), np.uint64)
    table = table_of_bands(bands, 7)
    assert table.shape == bands.shape and (table.column(1) == bands[:, 1]).all()
    numbers = rng.integers(0, 50, 200)
    np.testing.assert_array_equal(table.rows(numbers), bands[numbers])
    rows = [list(range(size)) for size in (3, 0, 2, 5)]
    lists = Lists(pa.chunked_array([rows[:2], [], rows[2:]], pa.large_list(pa.uint32())))
    assert [one.tolist() for one in lists] == rows and len(lists) == 4


def test_candidates_come_once_and_components_are_named_by_their_first():
    bands = np.array([[1, 9], [1, 8], [2, 8], [3, 7], [1, 8]], np.uint64)
    pairs = np.concatenate(list(candidates(table_of_bands(bands))))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (0, 4), (1, 2), (1, 4), (2, 4)]
    assert components(5, lambda: iter([pairs])).tolist() == [0, 0, 0, 3, 0]
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
    for blocks in ([chain], [chain[::-1]], np.array_split(chain[np.random.default_rng(0).permutation(999)], 7)):
        assert (components(1000, lambda blocks=blocks: iter(blocks)) == 0).all()
    assert components(3, lambda: iter([])).tolist() == [0, 1, 2]


def test_a_large_bucket_gives_enough_pairs_to_connect_it():
    pairs = np.concatenate(list(candidates(table_of_bands(np.zeros((200, 1), np.uint64)))))
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
        gone, *_ = again.choose(table_of(again, [*second, first[0]]))
        assert gone["row"].tolist() == ([0, 1, 5] if step is MinHash else [5])
        last = step(earlier=[two], index=three)
        assert len(last.choose(table_of(last, [*first, *second]))[0]) == 10


@pytest.mark.parametrize(
    ("made", "asked", "differ"),
    [
        (MinHash, {"ngram": 4}, "made with ngram 5, this step has ngram 4: give both the same"),
        (MinHash, {"seed": 1, "rows": 9}, "made with rows 8, seed 0, this step has rows 9, seed 1"),
        (SimHash, {"ngram": 2}, "made with ngram 3, this step has ngram 2"),
        (ExactDuplicates, {"by": "text"}, "made with by words, this step has by text"),
    ],
)
def test_an_index_that_was_made_in_another_way_is_refused_before_any_work(tmp_path, made, asked, differ):
    index = str(tmp_path / "index")
    made(index=index).choose(table_of(made(), ["some words here"]))
    made(earlier=[index], keep="source")
    with pytest.raises(ValueError, match=differ):
        made(earlier=[index], **asked)
    with pytest.raises(ValueError, match="is one of the earlier ones"):
        made(earlier=[index], index=index)


def test_what_is_no_index_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "index"
    with pytest.raises(FileNotFoundError, match="no such index; it is what a step with index="):
        MinHash(earlier=[str(path)])
    path.write_text("something else")
    with pytest.raises(ValueError, match="is no index, or a damaged one"):
        MinHash(earlier=[str(path)])
    MinHash(index=str(path)).choose(table_of(MinHash(), ["some words here"]))
    with pytest.raises(ValueError, match="made with step MinHash, ngram 5, this step has step SimHash, ngram 3"):
        SimHash(earlier=[str(path)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no index, or a damaged one"):
        MinHash(earlier=[str(path)])


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"bands": 1 << 16}, {"rows": 0}, {"ngram": 0}, {"threshold": 1.1}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="bands \\(below 65,536\\), rows and ngram are at least 1"):
        MinHash(**wrong)


def test_keys_are_those_that_indices_hold():
    """Made by this code on 2026-11-27. Where they change, `HASHES` must too, so that older indices are refused."""
    short = "It was the best of times, it was the worst of times -- 1859, été 一二"
    long = " ".join("word" + chr(97 + i % 26) + chr(97 + i // 26) for i in range(400))
    keys = table_of(MinHash(bands=3), [short, long])
    assert keys.column("bands").to_pylist() == [
        [0xBC55359B6426A44B, 0x2B3742439C18004C, 0x9D3E6EF70A653BFC],
        [0xA7D5C8A5D7CB2719, 0xB0DA970D406357C1, 0xD9F0ACF04E24FD76],
    ]
    assert [row[:2] for row in keys.column("shingles").to_pylist()] == [[8951543, 1197789453], [4923164, 5696910]]
    assert minhash.HASHES == 2
