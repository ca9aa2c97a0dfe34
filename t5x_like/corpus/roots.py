"""ROOTS' filters for the OSCAR part of BLOOM's corpus (arXiv:2303.03915, appendix; bigscience data-preparation, 01b).

Ratios of what is repeated, of special characters, of stop words and of flagged words. The two lists are files of one's
own (a word a line), as the limits belong to lists; without them their rules do not apply. Language and perplexity are
steps of their own (`Language`, `Score`). Special is what is neither letter nor mark of one (the released code: digits,
punctuation, spaces, and lists of marks and emoji, into which a few letters fell).

            words        characters   words        special    stop   flagged
            min - max    10-gram      5-gram       characters words  words
  Roots         10       0.2          0.3          0.4        0.1    0.1
  RootsEnglish  20       0.106        0.19         0.4        0.3    0.01     and long words and addresses are cut out
"""

import collections
import dataclasses
import functools
import itertools
import math
import pathlib
import re
import unicodedata
from collections.abc import Iterable

import pyarrow as pa

from t5x_like.corpus.documents import column, drop, with_column

_SPACES = re.compile(r"[^\S\n\t]")
_ADDRESS = ("http", "www", ".com", "href", "//")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roots:
    """stop_words, flagged_words   files with a word a line, or '': the rule does not apply
    longest_word                   longer words, and those that hold a part of an address, are cut out; 0: none is
    """

    min_words: int = 10
    max_words: int = 100_000
    max_repeated_characters: float = 0.2
    max_repeated_words: float = 0.3
    max_special_characters: float = 0.4
    min_stop_words: float = 0.1
    max_flagged_words: float = 0.1
    stop_words: str = ""
    flagged_words: str = ""
    characters_ngram: int = 10
    words_ngram: int = 5
    longest_word: int = 0

    def __post_init__(self):
        for path in (self.stop_words, self.flagged_words):
            if path and not pathlib.Path(path).is_file():
                raise FileNotFoundError(f"word list {path} is no file: name a text file with one word a line")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = [self.cut(text) for text in column(batch, "text")]
        return drop(with_column(batch, "text", texts), [self.reason(text) for text in texts])

    def cut(self, text: str) -> str:
        """One kind of space, and without the words that are too long or part of an address."""
        text = _SPACES.sub(" ", text.strip())
        if not self.longest_word:
            return text
        lines = (("\t".join(self._words(part) for part in line.split("\t"))).strip("\t") for line in text.split("\n"))
        return "\n".join(filter(None, lines))

    def _words(self, text: str) -> str:
        kept = []
        for word in filter(None, text.split(" ")):
            bare = stripped(word)
            is_long = len(word) > self.longest_word and (not bare or len(bare) > self.longest_word)
            if not is_long and not any(part in bare for part in _ADDRESS):
                kept.append(word)
        return " ".join(kept)

    def reason(self, text: str) -> str | None:
        words = [bare for word in re.split("[ \n\t]", text) if (bare := stripped(word))]
        if not self.min_words <= len(words) <= self.max_words:
            return "too few words" if len(words) < self.min_words else "too many words"
        if repeated_characters(text, self.characters_ngram) > self.max_repeated_characters:
            return "repeated characters"
        words = [word.lower() for word in words]
        if repeated_words(words, self.words_ngram) > self.max_repeated_words:
            return "repeated words"
        if sum(map(is_special, text)) / len(text) > self.max_special_characters:
            return "special characters"
        if self.stop_words and share_of(words, self.stop_words) < self.min_stop_words:
            return "too few stop words"
        if self.flagged_words and share_of(words, self.flagged_words) > self.max_flagged_words:
            return "flagged words"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootsEnglish(Roots):
    min_words: int = 20
    max_repeated_characters: float = 0.106
    max_repeated_words: float = 0.19
    min_stop_words: float = 0.3
    max_flagged_words: float = 0.01
    longest_word: int = 25


@functools.lru_cache(maxsize=1 << 16)
def is_special(character: str) -> bool:
    return unicodedata.category(character)[0] not in "LM"


def stripped(word: str) -> str:
    """Without special characters at both ends."""
    begin, end = 0, len(word)
    while begin < end and is_special(word[begin]):
        begin += 1
    while end > begin and is_special(word[end - 1]):
        end -= 1
    return word[begin:end]


def repeated_characters(text: str, n: int) -> float:
    """Of all runs of n characters the share of the most common ones: as many kinds as the root of their number."""
    counts = sorted(collections.Counter(text[i : i + n] for i in range(len(text) - n + 1)).values(), reverse=True)
    if not counts:
        return 0.0
    most = min(math.isqrt(len(counts)), sum(count > 1 for count in counts))
    return sum(itertools.islice(counts, most)) / sum(counts)


def repeated_words(words: list[str], n: int) -> float:
    """Of all runs of n words the share of those that stand more than once."""
    counts = collections.Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()
    return sum(count for count in counts if count > 1) / sum(counts) if counts else 0.0


def share_of(words: Iterable[str], path: str) -> float:
    known, words = _list(path), list(words)
    return sum(word in known for word in words) / len(words) if words else 0.0


@functools.lru_cache(maxsize=8)
def _list(path: str) -> frozenset[str]:
    lines = pathlib.Path(path).read_text(encoding="utf-8").split("\n")
    return frozenset(line.strip().lower() for line in lines) - {""}
