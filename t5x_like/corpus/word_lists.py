"""Documents with words of a list: bad words as in C4 (arXiv:1910.10683), sensitive topics, anything of one's own."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence

import pyarrow as pa

from t5x_like.corpus.documents import column, drop

# Scripts that are written without spaces: a word stands anywhere.
UNSPACED = ("ja", "th", "zh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordList:
    """Drops a document with more than `max_share` words of the list per word of its text (0: with any).

    paths   {language: file}, one word or phrase a line; a document is judged by the list of its own language
    allow   words of the lists that are no reason
    name    what the list is of, for the report

    A word counts where no letter of its script stands before or behind it; in `UNSPACED` languages anywhere, and there
    `max_share` is per character.
    """

    paths: dict[str, str]
    allow: Sequence[str] = ()
    max_share: float = 0.0
    name: str = "bad words"

    def __post_init__(self):
        for path in self.paths.values():
            if not pathlib.Path(path).is_file():
                raise FileNotFoundError(f"word list {path} is no file: name a text file with one word a line")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pairs = zip(column(batch, "text"), column(batch, "language"), strict=True)
        return drop(batch, [self.reason(text, language) for text, language in pairs])

    def reason(self, text: str, language: str) -> str | None:
        if language not in self.paths:
            return None
        found = len(self.pattern(language).findall(text.lower()))
        size = max(len(text) if language in UNSPACED else len(text.split()), 1)
        return f"{self.name} ({language})" if found / size > self.max_share else None

    def without(self, text: str, language: str) -> str:
        """The text in lower case, without the words of the language's list."""
        return self.pattern(language).sub("", text.lower())

    def pattern(self, language: str) -> re.Pattern:
        return pattern_of(self.paths[language], tuple(self.allow), language in UNSPACED)


@functools.lru_cache
def pattern_of(path: str, allow: tuple[str, ...], unspaced: bool) -> re.Pattern:
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    words = sorted({line.strip().lower() for line in lines} - {"", *allow}, key=lambda word: (-len(word), word))
    if not words:
        raise ValueError(f"word list {path} is empty: one word or phrase a line")
    choice = "|".join(map(re.escape, words))
    return re.compile(choice if unspaced else rf"(?<![^\W\d_])(?:{choice})(?![^\W\d_])")
