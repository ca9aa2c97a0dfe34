"""Wikis: the articles of MediaWiki's XML dumps as plain text, one document a page."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

import mwparserfromhell

from t5x_like.corpus import markup
from t5x_like.tasks.files import expand
from t5x_like.tasks.readers import MAX_DOCUMENT_BYTES

_NO_TEXT = ("ref", "gallery", "math", "timeline", "syntaxhighlight", "score")
_EMPTY_BRACKETS = re.compile(r" ?\(\s*[,;]?\s*\)")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclasses.dataclass(frozen=True)
class WikiDump:
    """pages-articles.xml, compressed (.bz2, .gz, .zst) or not: {"text", "url", "date", "licence"} of each article.

    A text is its title, an empty line, and what a reader sees: no templates, tables, references, files, categories.
    Redirects and pages outside of `namespaces` are left out and counted. `site` stands before a title in its address.
    """

    paths: Sequence[str]
    namespaces: Sequence[str] = ("0",)
    site: str = ""
    licence: str = "CC-BY-SA-4.0"
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        for page in markup.elements(path, "page", self.max_document_bytes):
            if markup.text_of(markup.child(page, "ns")) not in self.namespaces:
                yield "other_namespace"
            elif markup.child(page, "redirect") is not None:
                yield "redirect"
            else:
                yield self.article(page)

    def article(self, page) -> dict:
        title = markup.text_of(markup.child(page, "title"))
        source = markup.child(page, "revision", "text")
        text = plain_text((source.text or "") if source is not None else "")
        return {
            "text": f"{title}\n\n{text}" if text else "",
            "url": f"{self.site}{title.replace(' ', '_')}" if self.site else "",
            "date": markup.text_of(markup.child(page, "revision", "timestamp")),
            "licence": self.licence,
        }


def plain_text(source: str) -> str:
    """What a reader sees of wikitext."""
    code = mwparserfromhell.parse(source)
    for node in code.filter(recursive=False):
        if _is_no_text(node):
            code.remove(node)
    text = code.strip_code(normalize=True, collapse=True, keep_template_params=False)
    lines = [" ".join(line.split()) for line in _EMPTY_BRACKETS.sub("", text).split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _is_no_text(node) -> bool:
    nodes = mwparserfromhell.nodes
    if isinstance(node, nodes.Template | nodes.Comment):
        return True
    if isinstance(node, nodes.Tag):
        return str(node.tag).strip().lower() in (*_NO_TEXT, "table")
    # Files, categories and links to other languages stand in a namespace: [[File:...]], [[Kategorie:...]], [[de:...]].
    return isinstance(node, nodes.Wikilink) and ":" in str(node.title).lstrip(":")[1:] and node.title[:1] != ":"
