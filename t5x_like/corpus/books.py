"""Books as plain text: Project Gutenberg's files without what stands around the book, lines of a paragraph joined."""

import collections
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

from t5x_like.tasks.files import expand
from t5x_like.tasks.readers import whole_text

_BEGIN = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
_END = re.compile(r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
_FIELD = re.compile(r"^(Language|Release date):\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_LANGUAGES = {"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "chinese": "zh"}
_LANGUAGES |= {"portuguese": "pt", "dutch": "nl", "finnish": "fi", "latin": "la", "russian": "ru", "japanese": "ja"}


@dataclasses.dataclass(frozen=True)
class Books:
    """One document a .txt file: {"text", "language", "date", "licence"}, the last three of Gutenberg's header.

    A paragraph whose lines were broken at a width becomes one line; where lines are short on purpose (verse, tables)
    they stay. Files without the header are taken whole.
    """

    paths: Sequence[str]
    max_document_bytes: int = 64 * 2**20

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        text = whole_text(path, self.max_document_bytes, counts)
        if text is None:
            yield "too_long"
            return
        begin, told = _BEGIN.search(text), {}
        if begin:
            fields = {name.lower(): value for name, value in _FIELD.findall(text[: begin.start()])}
            told["licence"] = "Project Gutenberg"
            told["date"] = fields.get("release date", "").partition("[")[0].strip()
            told["language"] = _LANGUAGES.get(fields.get("language", "").lower(), "")
        end = _END.search(text)
        body = text[begin.end() if begin else 0 : end.start() if end else len(text)]
        yield {"text": joined(body), **told}


def joined(text: str) -> str:
    """Paragraphs of lines of nearly one width, in one line each."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = [line.rstrip() for line in paragraph.split("\n")]
        widest = max(map(len, lines))
        is_wrapped = widest >= 50 and all(
            not line.startswith(" ") and len(line) + 1 + len(following.split(" ", 1)[0]) > 0.8 * widest
            for line, following in itertools.pairwise(lines)
        )
        paragraphs.append(" ".join(lines) if is_wrapped else "\n".join(lines))
    return "\n\n".join(paragraphs)
