"""N-gram models: proper distributions, the formula written out, and ARPA files as others write them."""

import collections
import itertools
import math
import random

import numpy as np
import pytest

from t5x_like.corpus import ngram_model as ngrams

VOCABULARY = ngrams.FIRST + 6
TOKENS = [t for t in range(VOCABULARY) if t != ngrams.BEGIN]


@pytest.fixture(scope="module")
def corpus():
    """Lines of six tokens, in which what follows depends on what was."""
    rng = random.Random(0)
    lines = []
    for _ in range(300):
        line = [rng.randrange(6)]
        while rng.random() < 0.85:
            line.append((line[-1] * 2 + rng.choice([0, 1, 1, 3])) % 6)
        lines.append([ngrams.FIRST + token for token in line])
    return [[], *lines[:-1], lines[-1][:1]]


def p_of(levels, line):
    """p of every token of a line and of its end."""
    return 10 ** ngrams.log_probabilities(levels, ngrams.lines_of([line]))[1:]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_after_any_context_the_probabilities_of_all_tokens_add_up_to_one(corpus, order):
    levels = ngrams.train(ngrams.lines_of(corpus), order, VOCABULARY)
    for context in ([], [3], [8], [3, 4], [8, 8, 8], [5, 3, 7, 8], [ngrams.UNKNOWN, 4]):
        ids = [[*context, token] for token in TOKENS]
        lines = ngrams.lines_of(ids)
        at = np.cumsum([len(line) + 2 for line in ids]) - 2  # of the last token of each, before the line's end
        p = 10 ** ngrams.log_probabilities(levels, lines)[at]
        assert p.min() > 0
        np.testing.assert_allclose(p.sum(), 1, atol=2e-6)


def written_out(corpus, order):
    """p(w | context) by the formula, with dictionaries: the highest order by counts, the others by continuations."""
    padded = [[ngrams.BEGIN, *line, ngrams.END] for line in corpus]
    raw = [collections.Counter() for _ in range(order + 1)]
    for line in padded:
        for n in range(1, order + 1):
            raw[n].update(tuple(line[i : i + n]) for i in range(len(line) - n + 1))
    counts = [None, *({} for _ in range(order))]
    for n in range(1, order + 1):
        before = collections.Counter(gram[1:] for gram in raw[n + 1]) if n < order else {}
        for gram in raw[n]:
            counts[n][gram] = raw[n][gram] if n == order or gram[0] == ngrams.BEGIN else before[gram]
    counts[1].pop((ngrams.BEGIN,), None)
    taken = [None, *(ngrams.discounts(np.array(list(one.values()))) for one in counts[1:])]

    def p(token, context):
        n = len(context) + 1
        lower = 1 / (VOCABULARY - 1) if n == 1 else p(token, context[1:])
        following = {gram[-1]: count for gram, count in counts[n].items() if gram[:-1] == context}
        if not following:
            return lower
        discount = {t: taken[n][min(c, 3)] for t, c in following.items()}
        own = following.get(token, 0) - discount.get(token, 0)
        return (own + sum(discount.values()) * lower) / sum(following.values())

    return p


@pytest.mark.parametrize("order", [2, 3, 4])
def test_it_is_the_formula_written_out(corpus, order):
    levels = ngrams.train(ngrams.lines_of(corpus), order, VOCABULARY)
    p = written_out(corpus, order)
    for line in (corpus[1], corpus[2] + corpus[3], [3, 3, 3, 3], [4], [], [ngrams.UNKNOWN, 5, 6]):
        padded = (ngrams.BEGIN, *line, ngrams.END)
        expected = [p(padded[i], padded[max(0, i - order + 1) : i]) for i in range(1, len(padded))]
        np.testing.assert_allclose(p_of(levels, line), expected, rtol=2e-6)


def test_discounts_are_chen_and_goodmans():
    counts = np.repeat([1, 2, 3, 4, 9], [60, 20, 9, 5, 3])
    y = 60 / (60 + 2 * 20)
    expected = [0, 1 - 2 * y * 20 / 60, 2 - 3 * y * 9 / 20, 3 - 4 * y * 5 / 9]
    np.testing.assert_allclose(ngrams.discounts(counts), expected)
    np.testing.assert_array_equal(ngrams.discounts(np.array([1, 1, 2])), [0, 0.5, 1, 1.5])


def test_what_was_learnt_is_more_likely_and_a_longer_context_helps(corpus):
    def bits(order, lines):
        levels = ngrams.train(ngrams.lines_of(corpus[:250]), order, VOCABULARY)
        return -ngrams.log_probabilities(levels, ngrams.lines_of(lines)).sum() / math.log10(2)

    held_out = corpus[250:]
    mixed = [random.Random(i).sample(line, len(line)) for i, line in enumerate(held_out)]
    assert bits(2, held_out) < 0.9 * bits(1, held_out)
    assert bits(2, held_out) < bits(2, mixed)


def test_a_model_is_read_from_its_folder_as_it_was(corpus, tmp_path):
    levels = ngrams.train(ngrams.lines_of(corpus), 3, VOCABULARY)
    ngrams.save(levels, tmp_path)
    for one, other in zip(levels, ngrams.load(str(tmp_path)), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="holds no n-gram model"):
        ngrams.load(str(tmp_path / "none"))


ARPA = """\
\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-1.2\t<unk>\t0
0\t<s>\t-0.3
-0.9\t</s>\t0
-0.7\tthe\t-0.4
-0.8\tcat\t-0.2

\\2-grams:
-0.25\t<s> the\t-0.1
-0.35\tthe cat\t-0.15
-0.45\tcat </s>\t0
-0.55\tcat the\t-0.05

\\3-grams:
-0.11\t<s> the cat

\\end\\
"""


def test_an_arpa_file_gives_what_the_back_off_rule_says(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(ARPA)
    levels, words = ngrams.read_arpa(path)

    def log_p(text):
        ids = [words.get(word, ngrams.UNKNOWN) for word in text.split()]
        return ngrams.log_probabilities(levels, ngrams.lines_of([ids]))[1:]

    np.testing.assert_allclose(log_p("the cat"), [-0.25, -0.11, -0.15 - 0.45], atol=1e-6)
    np.testing.assert_allclose(log_p("cat the cat"), [-0.3 - 0.8, -0.55, -0.05 - 0.35, -0.15 - 0.45], atol=1e-6)
    np.testing.assert_allclose(log_p("the dog"), [-0.25, -0.1 - 0.4 - 1.2, -0.9], atol=1e-6)
    path.write_text(ARPA[: ARPA.index("\\3-grams")])
    with pytest.raises(ValueError, match="the file is cut off"):
        ngrams.read_arpa(path)
    path.write_text("words\n")
    with pytest.raises(ValueError, match="is no ARPA file"):
        ngrams.read_arpa(path)


def test_lines_do_not_see_each_other(corpus):
    levels = ngrams.train(ngrams.lines_of(corpus), 3, VOCABULARY)
    together = ngrams.log_probabilities(levels, ngrams.lines_of(corpus[:20]))
    alone = [ngrams.log_probabilities(levels, ngrams.lines_of([line])) for line in corpus[:20]]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert len(list(itertools.chain(*alone))) == len(together)
