"""Readers of web pages: WARC and WET files of Common Crawl, and HTML files. Text is extracted by resiliparse.

Damage in the middle of a file ends that file, and what came before it is used; a page whose size is above
`max_document_bytes` is dropped as "too_long", one whose elements are nested by thousands as "empty".
"""

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding

from t5x_like.tasks.files import expand
from t5x_like.tasks.readers import MAX_DOCUMENT_BYTES

MAX_DEPTH = 2000
# Tags that open or close an element which others may be in; a page may leave <p> and <li> open, so they say nothing.
_TAG = re.compile(
    r"<(/?)(?:div|span|table|tr|td|ul|ol|section|article|blockquote|b|i|em|font|center|a)\b", re.IGNORECASE
)
_HTML = ("text/html", "application/xhtml+xml")


@dataclasses.dataclass(frozen=True)
class Warc:
    """The HTML pages among the responses of .warc and .warc.gz files: text, url and date.

    main_content   only what is no navigation, header or footer
    """

    paths: Sequence[str]
    main_content: bool = True
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: Counter) -> Iterator[dict | str]:
        for record in records(path, WarcRecordType.response):
            kind = (record.http_content_type or "").partition(";")[0].strip().lower()
            if kind not in _HTML:
                yield "not_html"
                continue
            body = record.reader.read(self.max_document_bytes + 1)
            if len(body) > self.max_document_bytes:
                yield "too_long"
                continue
            yield {"text": html_text(body, record.http_charset, self.main_content), **headers_of(record)}


@dataclasses.dataclass(frozen=True)
class Wet:
    """The pages of .wet files, which Common Crawl already made text of."""

    paths: Sequence[str]
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: Counter) -> Iterator[dict | str]:
        for record in records(path, WarcRecordType.conversion):
            body = record.reader.read(self.max_document_bytes + 1)
            if len(body) > self.max_document_bytes:
                yield "too_long"
                continue
            yield {"text": body.decode("utf-8", errors="replace"), **headers_of(record)}


@dataclasses.dataclass(frozen=True)
class HtmlFiles:
    """One document per HTML file."""

    paths: Sequence[str]
    main_content: bool = True
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: Counter) -> Iterator[dict | str]:
        if path.stat().st_size > self.max_document_bytes:
            yield "too_long"
            return
        yield {"text": html_text(path.read_bytes(), None, self.main_content)}


def records(path: pathlib.Path, kind: WarcRecordType) -> Iterator:
    with path.open("rb") as file:
        yield from ArchiveIterator(file, record_types=kind, parse_http=True)


def too_deep(page: str) -> bool:
    """Elements in elements in ...: extraction takes the square of their number, and no page is written like that."""
    if page.count("<") < MAX_DEPTH:
        return False
    depth = deepest = 0
    for match in _TAG.finditer(page):
        depth = max(depth + (1 if match[1] == "" else -1), 0)
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH


def headers_of(record) -> dict[str, str]:
    date = record.record_date
    return {"url": record.headers.get("WARC-Target-URI", ""), "date": date.isoformat() if date else ""}


def html_text(body: bytes, charset: str | None, main_content: bool) -> str:
    """The text that a reader of the page sees. The charset is the one it was sent with, or else detected."""
    try:
        page = body.decode(charset or detect_encoding(body), errors="replace")
    except LookupError:  # a charset that nobody knows
        page = body.decode("utf-8", errors="replace")
    if too_deep(page):
        return ""
    return extract_plain_text(page, main_content=main_content, alt_texts=False, links=False, form_fields=False)
