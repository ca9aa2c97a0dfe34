"""RefinedWeb's corrections line by line (arXiv:2306.01116, appendix G.2), as DCLM's released code has them.

A line goes that is written in capitals, is a number, counts something ("3 likes") or is one word; of a line of at most
ten words "items in cart", "Read more..." at its end and "Sign-in" at its beginning go. A page goes that loses more than
5 % of its words so. (DCLM's pattern of "Read more..." has three dots that stand for anything; here they are dots. Words
are what whitespace separates, those of punctuation alone not counted.)
"""

import dataclasses
import re

import pyarrow as pa

from t5x_like.corpus.documents import column, drop, with_column
from t5x_like.corpus.gopher import PUNCTUATION

_COUNTER = re.compile(
    r"^\W*\d(?:,|\.|\d)*(?:k|m|b)?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|"
    r"downloads|views|followers)\W*$"
)
_PHRASES = (
    re.compile(r"\s?items in cart", re.IGNORECASE),
    re.compile(r"\s?Read more\.\.\.$", re.IGNORECASE),
    re.compile(r"^Sign-in\s?", re.IGNORECASE),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedWebLines:
    max_capitals: float = 0.5
    min_words: int = 2
    words_of_phrase_lines: int = 10
    max_removed: float = 0.05

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = [self.clean(text) for text in column(batch, "text")]
        batch = with_column(batch, "text", [text for text, _ in found])
        return drop(batch, [reason for _, reason in found])

    def clean(self, text: str) -> tuple[str, str | None]:
        """(the lines that stay, why the page goes or None); a page that goes keeps its text."""
        lines = [line for line in text.split("\n") if not line or self.stays(line)]
        for phrase in _PHRASES:
            lines = [left for line in lines if (left := self.without(line, phrase)) is not None]
        kept = "\n".join(lines).strip()
        if not kept:
            return text, "no line stays"
        before, after = count_words(text), count_words(kept)
        if not before or (before - after) / before > self.max_removed:
            return text, "too many words removed"
        return kept, None

    def stays(self, line: str) -> bool:
        if sum(map(str.isupper, line)) / len(line) > self.max_capitals or all(map(str.isdigit, line)):
            return False
        return not _COUNTER.search(line.lower()) and len(line.split()) >= self.min_words

    def without(self, line: str, phrase: re.Pattern) -> str | None:
        """A short line without the phrase; None for one that said nothing else."""
        if len(line.split()) > self.words_of_phrase_lines:
            return line
        left = phrase.sub("", line)
        return None if line and not left.strip() else left


def count_words(text: str) -> int:
    return sum(not PUNCTUATION.issuperset(word) for word in text.split())
