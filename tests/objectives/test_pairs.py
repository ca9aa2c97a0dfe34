"""Pairs of texts: their kinds, their order, their lengths. A draw of N is within 4 standard errors."""

import itertools

import numpy as np
import pytest

from t5x_like.data import pairing, ragged
from t5x_like.data.examples import Context
from t5x_like.data.pairing import NEXT, RANDOM, SWAPPED
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.next_sentence import NextSentence
from t5x_like.objectives.sentence_order import SentenceOrder
from t5x_like.objectives.sentence_unshuffling import SentenceUnshuffling
from t5x_like.objectives.structural import Structural, trigrams
from t5x_like.vocabularies.special_tokens import SpecialTokens

STOP, SPECIAL = 5, SpecialTokens(pad=0, eos=1, cls=2, separator=3, mask=4)
V = 100_000


class Words:
    begins_word = np.ones(V, bool)


def corpus(count=300, seed=0):
    """Documents whose tokens count up, so that a token tells its document and place; a sentence has 3 to 12 tokens."""
    rng = np.random.default_rng(seed)
    documents = []
    for k in range(count):
        document = 10 + 300 * k + np.arange(rng.integers(60, 280))
        document[np.cumsum(rng.integers(3, 13, 40))[:-1] % len(document)] = STOP
        documents.append(document)
    return ragged.from_list(documents)


def made(objective, length=64, seed=0):
    text = corpus()
    context = Context({"targets": length}, SPECIAL, V, Words())
    objective.check(context)
    return objective.examples(np.random.default_rng(seed), Documents({"targets": text}, np.ones(300, bool)), context)


def halves(side):
    """(left, right, class) of every example, as the text was."""
    labels = side.aux["pair"][side.starts] - 1
    for k, label in enumerate(labels.tolist()):
        one = side.cut(k, k + 1)
        first, second = np.flatnonzero(one.targets == SPECIAL.separator)
        assert one.targets[0] == SPECIAL.cls and second == len(one.targets) - 1
        assert one.type_ids.tolist() == [0] * (first + 1) + [1] * (second - first)
        yield one.targets[1:first], one.targets[first + 1 : second], label


def where(tokens):
    """(document, first place, last place) of what is left of a text when its full stops are taken away."""
    plain = tokens[tokens != STOP] - 10
    return (plain[0] // 300, plain[0] % 300, plain[-1] % 300) if len(plain) else None


def near(share, expected, n):
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_a_sentence_ends_with_its_last_full_stop_or_its_document():
    found = pairing.find_sentences(ragged.from_list([[7, STOP, STOP, 8], [], [9, STOP], [6]]), np.array([STOP]))
    assert found.lengths.tolist() == [3, 1, 2, 1] and found.starts.tolist() == [0, 3, 4, 6]
    assert found.first_of.tolist() == [0, 2, 2, 3] and found.last_of.tolist() == [2, 2, 3, 4]


def test_next_sentences_follow_and_random_ones_are_of_another_document():
    labels = []
    for left, right, label in halves(made(NextSentence(sentence_ends=[STOP], short_share=0.0))):
        labels.append(label)
        if where(left) and where(right):
            a, b = where(left), where(right)
            assert (a[0] != b[0]) if label else (a[0] == b[0] and a[2] < b[1])
    assert len(labels) > 800
    assert 0.5 - 4 * 0.5 / np.sqrt(len(labels)) < np.mean(labels) < 0.6  # half, and the chunks of one sentence


def test_what_a_random_text_took_the_place_of_is_used_next():
    seen = set()
    for left, right, label in halves(made(NextSentence(sentence_ends=[STOP], short_share=0.0), length=512)):
        seen |= set(left.tolist()) | (set() if label else set(right.tolist()))
    text = corpus().values
    assert len(seen) > 0.99 * len(set(text.tolist()))


def test_swapped_pairs_put_back_are_the_text():
    labels = []
    for left, right, label in halves(made(SentenceOrder(sentence_ends=[STOP]))):
        if where(left) is None or where(right) is None or where(left)[0] != where(right)[0]:
            continue
        labels.append(label)
        first, second = (right, left) if label else (left, right)
        assert where(first)[2] < where(second)[1]
    assert len(labels) > 800 and near(np.mean(labels), 0.5, len(labels))


def test_structbert_has_three_kinds_alike():
    side = made(Structural(sentence_ends=[STOP], short_share=0.0), length=128)
    found = [label for *_, label in halves(side)]
    shares = np.bincount(found, minlength=3) / len(found)
    assert all(near(share, 1 / 3, len(found)) for share in shares[:2]), shares


def test_a_row_is_filled_but_for_short_chunks():
    lengths = made(NextSentence(sentence_ends=[STOP])).lengths
    assert lengths.max() == 64 and (lengths == 64).mean() > 0.6


def test_the_longer_text_loses_tokens_first_and_at_both_ends():
    rng, n = np.random.default_rng(0), 4000
    full = np.full(n, 30)
    starts, a, begins, b = pairing.shortened(rng, np.zeros(n, int), full, np.zeros(n, int), full - 20, 20)
    assert set(a.tolist()) == set(b.tolist()) == {10} and set(begins.tolist()) == {0}
    assert starts.min() < 5 and starts.max() > 15 and abs(starts.mean() - 10) < 4 * np.sqrt(5 / n)
    _, a, _, b = pairing.shortened(rng, np.zeros(n, int), full, np.zeros(n, int), full, 31)
    assert set(a.tolist()) == {16} and set(b.tolist()) == {15}


def test_trigrams_of_unhidden_tokens_are_shuffled_and_predicted():
    side = made(Structural(sentence_ends=[STOP], mask=MaskedLM(masked=1.0, random=0.0)), length=128)
    moved = (side.loss_weights > 0) & (side.tokens != SPECIAL.mask)
    assert moved.sum() % 3 == 0
    share = moved.sum() / (side.tokens != SPECIAL.mask).sum()
    assert 0.025 < share < 0.05  # 5 % of the trigrams that fit between hidden tokens
    trios = np.flatnonzero(moved).reshape(-1, 3)
    assert all(sorted(side.tokens[t].tolist()) == sorted(side.targets[t].tolist()) for t in trios)
    distinct = [t for t in trios if len(set(side.targets[t].tolist())) == 3]
    same = np.mean([(side.tokens[t] == side.targets[t]).all() for t in distinct])
    assert near(same, 1 / 6, len(distinct))


def test_trigrams_lie_inside_free_stretches():
    lengths, free = np.array([7, 5]), np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1], bool)
    assert trigrams(np.random.default_rng(0), lengths, free, 3, 1.0).tolist() == [0, 4, 7]


def test_one_document_alone_is_its_own_other():
    text = ragged.from_list([np.arange(10, 50)])
    pairs = pairing.pair_up(
        np.random.default_rng(0), pairing.find_sentences(text, np.array([19, 29])), room=20, shares=(0, 0, 1), short=0
    )
    assert set(pairs.kinds.tolist()) == {RANDOM} and {NEXT, SWAPPED, RANDOM} == {0, 1, 2}


def test_shuffled_sentences_put_back_by_their_classes_are_the_text():
    side = made(SentenceUnshuffling(sentence_ends=[STOP], max_sentences=5), length=128)
    found, places = [], []
    for k in range(side.num_examples):
        one = side.cut(k, k + 1)
        starts = np.flatnonzero(np.isin(one.targets, [SPECIAL.cls, SPECIAL.separator]))
        sentences = [one.targets[a + 1 : b] for a, b in itertools.pairwise(starts)]
        labels = one.aux["pair"][starts[:-1]] - 1
        assert one.aux["pair"].astype(bool).sum() in (0, len(sentences)) and len(sentences) <= 5
        if len(sentences) > 1:
            assert sorted(labels.tolist()) == list(range(len(sentences)))
            places += labels[:1].tolist() if len(sentences) == 5 else []
            sentences = [sentences[i] for i in np.argsort(labels)]
        found += sentences
    assert len(places) > 300 and abs(np.mean(places) - 2) < 4 * np.sqrt(2 / len(places))
    assert np.concatenate(found).tolist() == corpus().values.tolist()


def test_bad_settings_are_said():
    with pytest.raises(ValueError, match="sentence_ends is empty"):
        made(NextSentence())
    with pytest.raises(ValueError, match="random_share 2"):
        NextSentence(random_share=2)
    with pytest.raises(ValueError, match="pairs have dynamic masks"):
        SentenceOrder(mask=MaskedLM(masks="static"))
