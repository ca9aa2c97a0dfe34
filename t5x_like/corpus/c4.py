"""C4's rules for pages and their lines (arXiv:1910.10683, section 2.2; the code released with TensorFlow Datasets).

A line goes unless it ends like a sentence and has enough words; a page goes for what one line of it says, or when too
few sentences are left. Paper and code differ, and so are two presets:

                     words a line   sentences a page   a line may end with
  C4()      code          5                3           . ? ! "
  C4Paper() paper         3                5           . ? ! "

  MC4Lines()                mC4 (arXiv:2010.11934) asks instead for three lines of 200 characters, in any language

Sentences are counted as runs of sentence ends (the code: NLTK's Punkt, a model that is downloaded). Bad words are
another step (`WordList`), and so are lines that stand on several pages.
"""

import dataclasses
import re

import pyarrow as pa

from t5x_like.corpus.documents import column, drop, with_column

CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
MAX_WORD, MAX_PAGE = 1000, 190_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class C4:
    words_per_line: int = 5
    sentences_per_page: int = 3
    must_end_sentence: bool = True

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = [self.clean(text) for text in column(batch, "text")]
        batch = with_column(batch, "text", [text for text, _ in found])
        return drop(batch, [reason for _, reason in found])

    def clean(self, text: str) -> tuple[str, str | None]:
        """(the lines that stay, why the page goes or None); a page that goes keeps its text."""
        if len(text) > MAX_PAGE:
            return text, "page too long"
        kept, sentences = [], 0
        for raw in text.split("\n"):
            line = self.line(raw.strip())
            if line is None:
                continue
            reason = reason_of_page(line)
            if reason:
                return text, reason
            if "javascript" in line.lower() or any(policy in line.lower() for policy in POLICIES):
                continue
            kept.append(line)
            sentences += max(len(SENTENCE_END.findall(line)), 1)
        if sentences < self.sentences_per_page:
            return text, "too few sentences"
        return "\n".join(kept), None

    def line(self, line: str) -> str | None:
        """The line without citations, or None if it is none of a text."""
        if len(line) > MAX_WORD and max(map(len, line.split())) > MAX_WORD:
            return None
        line = CITATION.sub("", line) if "[" in line else line
        if self.must_end_sentence and (not line.endswith((".", "?", "!", '"')) or line.endswith("...")):
            return None
        return None if len(line.split()) < self.words_per_line else line


def reason_of_page(line: str) -> str | None:
    """What a single line says of its page. The code asks a line of "javascript" for "lorem ipsum" alone."""
    lower = line.lower()
    if "lorem ipsum" in lower:
        return "lorem ipsum"
    return "curly bracket" if "{" in line and "javascript" not in lower else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class C4Paper(C4):
    words_per_line: int = 3
    sentences_per_page: int = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class MC4Lines:
    """mC4's rule for pages of any language: enough lines that are long."""

    lines: int = 3
    characters: int = 200

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return drop(batch, [self.reason(text) for text in column(batch, "text")])

    def reason(self, text: str) -> str | None:
        long = sum(len(line) >= self.characters for line in text.split("\n"))
        return "too few long lines" if long < self.lines else None
