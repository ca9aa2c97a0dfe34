"""Gopher's rules of quality and of repetition (arXiv:2112.11446, appendix A.1.1, table A1).

Published code reads them in different ways. Here, as datatrove does: a stop word counts once; of what is repeated the
second and later copies count; the most common run of words counts even where it stands once; shares of characters are
of the whole text; lines are split at runs of line breaks, paragraphs at empty lines; bullets are • and -. Words are
what whitespace separates, and those of punctuation alone count neither as words nor in their mean length (datatrove:
words of a spaCy tokenizer).
"""

import collections
import dataclasses
import re
import string
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from t5x_like.corpus.documents import column, drop
from t5x_like.corpus.hashing import NEXT, finish

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
PUNCTUATION = frozenset(string.punctuation + "–—‘’“”…•·«»、。，！？：；（）《》「」")
BULLETS = ("•", "-")
_LINES, _PARAGRAPHS = re.compile(r"\n+"), re.compile(r"\n{2,}")
TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
REPEATED_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GopherQuality:
    min_words: int = 50
    max_words: int = 100_000
    min_word_length: float = 3.0
    max_word_length: float = 10.0
    max_symbols_per_word: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: int = 2
    stop_words: Sequence[str] = tuple(sorted(STOP_WORDS))

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return drop(batch, [self.reason(text) for text in column(batch, "text")])

    def reason(self, text: str) -> str | None:
        words = text.split()
        spoken = [word for word in words if not PUNCTUATION.issuperset(word)]
        if not self.min_words <= len(spoken) <= self.max_words:
            return "too few words" if len(spoken) < self.min_words else "too many words"
        mean = sum(map(len, spoken)) / len(spoken)
        if not self.min_word_length <= mean <= self.max_word_length:
            return "mean word length"
        if text.count("#") / len(words) > self.max_symbols_per_word:
            return "too many hashes"
        if (text.count("...") + text.count("…")) / len(words) > self.max_symbols_per_word:
            return "too many ellipses"
        lines = text.splitlines()
        if sum(line.lstrip().startswith(BULLETS) for line in lines) / len(lines) > self.max_bullet_lines:
            return "too many bullets"
        if sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines) > self.max_ellipsis_lines:
            return "too many lines end in an ellipsis"
        if sum(any(map(str.isalpha, word)) for word in words) / len(words) < self.min_alphabetic_words:
            return "too few words with a letter"
        if self.min_stop_words and len(set(self.stop_words).intersection(words)) < self.min_stop_words:
            return "too few stop words"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GopherRepetition:
    max_repeated_lines: float = 0.30
    max_repeated_paragraphs: float = 0.30
    max_characters_of_repeated_lines: float = 0.20
    max_characters_of_repeated_paragraphs: float = 0.20

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return drop(batch, [self.reason(text) for text in column(batch, "text")])

    def reason(self, text: str) -> str | None:
        if not text:
            return "empty"
        parts = {
            "paragraphs": (_PARAGRAPHS.split(text.strip()), self.max_repeated_paragraphs),
            "lines": (_LINES.split(text), self.max_repeated_lines),
        }
        of_characters = {
            "paragraphs": self.max_characters_of_repeated_paragraphs,
            "lines": self.max_characters_of_repeated_lines,
        }
        for name, (found, share) in parts.items():
            count, characters = repeated(found)
            if count / len(found) > share:
                return f"repeated {name}"
            if characters / len(text) > of_characters[name]:
                return f"characters of repeated {name}"
        return ngram_reason(text.split(), len(text))


def ngram_reason(words: Sequence[str], characters: int) -> str | None:
    """Counting runs of words costs most of all rules, so what they could count at most is looked at first."""
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
    limits, grams = dict(TOP_NGRAMS + REPEATED_NGRAMS), ids
    for n in range(2, 11):
        if len(words) < n:
            break
        grams = finish(grams[:-1] * NEXT + ids[n - 1 :] + np.uint64(1))
        ordered = np.sort(grams)
        same = ordered[1:] == ordered[:-1]
        if n > 4 and not same.any():
            break  # nor is any longer run repeated
        most_allowed = limits[n] * characters
        if n < 5:
            most = int(np.diff(np.flatnonzero(np.append(~same, True)), prepend=-1).max())
            longest = int(np.convolve(lengths, np.ones(n, np.int64), "valid").max()) + n - 1
            if most * longest > most_allowed and top_ngram(words, n) > most_allowed:
                return f"top {n}-gram"
        elif covered_by(grams, lengths, n) > most_allowed and repeated_ngrams(words, n) > most_allowed:
            return f"repeated {n}-grams"
    return None


def covered_by(grams: np.ndarray, lengths: np.ndarray, n: int) -> int:
    """Characters of all words in runs of n that stood before already: no count of them is higher."""
    order = np.argsort(grams, kind="stable")
    again = np.sort(order[1:][grams[order[1:]] == grams[order[:-1]]])
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(edges, again, 1)
    np.add.at(edges, again + n, -1)
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())


def repeated(parts: Sequence[str]) -> tuple[int, int]:
    """(how many parts stood before already, their characters)."""
    seen, count, characters = set(), 0, 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count, characters


def top_ngram(words: Sequence[str], n: int) -> int:
    """Characters of the most common run of n words, the first of several, times how often it stands there."""
    if len(words) < n:
        return 0
    gram, count = collections.Counter(zip(*(words[i:] for i in range(n)), strict=False)).most_common(1)[0]
    return len(" ".join(gram)) * count


def repeated_ngrams(words: Sequence[str], n: int) -> int:
    """Characters of words in runs of n that stood before already, each word once."""
    if len(set(words)) == len(words):
        return 0
    seen, characters, place = set(), 0, 0
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    while place < len(grams):
        gram = grams[place]
        if gram in seen:
            characters += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return characters
