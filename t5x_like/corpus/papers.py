"""Papers: JATS XML (PubMed Central, publishers), LaTeX sources (arXiv), and Markdown."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

from t5x_like.corpus import markup
from t5x_like.tasks.files import expand
from t5x_like.tasks.readers import MAX_DOCUMENT_BYTES, whole_text

# Of a JATS article: what is no running text. Formulas stay where they are told in TeX.
_NO_TEXT = frozenset(
    ["table-wrap", "fig", "xref", "ref-list", "fn-group", "ack", "supplementary-material", "math", "label"]
)
_HREF = "{http://www.w3.org/1999/xlink}href"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*?(\n|$)")
_INPUT = re.compile(r"\\(?:input|include)\s*\{([^{}]+)\}")
_MACRO = re.compile(
    r"\\(?:newcommand|renewcommand|def)\*?\s*\{?\\([A-Za-z]+)\}?\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
_BIBLIOGRAPHY = re.compile(
    r"\\begin\{thebibliography\}.*?\\end\{thebibliography\}|\\bibliography(style)?\{[^}]*\}", re.DOTALL
)
_TITLE = re.compile(r"\\title(?:\[[^\]]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}")
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n+")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_NAMES = {
    "date": "date",
    "lang": "language",
    "language": "language",
    "license": "licence",
    "licence": "licence",
    "url": "url",
}
_MOST_MACROS = 10


@dataclasses.dataclass(frozen=True)
class JatsArticles:
    """Articles of .xml or .nxml files: title, abstract, sections with their headings; no tables, figures, references.

    {"text", "url" (the DOI's), "date", "licence", "language"}.
    """

    paths: Sequence[str]
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        for article in markup.elements(path, "article", self.max_document_bytes):
            front = markup.child(article, "front", "article-meta")
            parts = (
                [markup.text_of(markup.child(front, "title-group", "article-title"), _NO_TEXT)]
                if front is not None
                else []
            )
            abstract = markup.child(front, "abstract") if front is not None else None
            parts += [*blocks(abstract), *blocks(markup.child(article, "body"))]
            yield {"text": "\n\n".join(filter(None, parts)), **about(article, front)}


def blocks(element) -> Iterator[str]:
    """Headings and paragraphs in their order; lists and quotations paragraph by paragraph."""
    for one in element if element is not None else ():
        name = markup.local(one)
        if name in ("p", "title"):
            yield markup.text_of(one, _NO_TEXT)
        elif name not in _NO_TEXT:
            yield from blocks(one)


def about(article, front) -> dict[str, str]:
    told = {"language": article.get(_LANGUAGE, "")[:2]}
    if front is None:
        return told
    for one in front:
        if markup.local(one) == "article-id" and one.get("pub-id-type") == "doi":
            told["url"] = f"https://doi.org/{markup.text_of(one)}"
        if markup.local(one) == "pub-date" and "date" not in told:
            numbers = [markup.text_of(markup.child(one, name)) for name in ("year", "month", "day")]
            told["date"] = "-".join(number.zfill(2) for number in numbers if number)
    licence = markup.child(front, "permissions", "license")
    if licence is not None:
        told["licence"] = licence.get(_HREF) or markup.text_of(licence)
    return told


@dataclasses.dataclass(frozen=True)
class LatexSources:
    """.tex files as LaTeX, which models learn to write: as RedPajama takes arXiv, but parts that are put in are read.

    Left out: comments, what stands before \\\\begin{document} (but for the title), the bibliography. Macros without
    arguments that the file defines are written out. \\\\input and \\\\include are followed below the file's own folder;
    a file that another one puts in is no document of its own, nor is one without \\\\begin{document}.
    """

    paths: Sequence[str]
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        source = self.whole(path, counts, ())
        if source is None:
            yield "too_long"
        elif "\\begin{document}" not in source:
            yield "no_document"
        else:
            yield {"text": latex_text(source)}

    def whole(self, path: pathlib.Path, counts: collections.Counter, above: tuple[pathlib.Path, ...]) -> str | None:
        """A file with those that it puts in, without comments; None if it is too long."""
        source = whole_text(path, self.max_document_bytes, counts)
        if source is None:
            return None
        source = _COMMENT.sub(r"\1\2", source)
        home = (above[0] if above else path).parent.resolve()
        parts, at, size = [], 0, 0
        for match in _INPUT.finditer(source):
            inside = (home / match[1].strip()).resolve()
            inside = inside if inside.suffix else inside.with_suffix(".tex")
            is_ours = inside.is_relative_to(home) and inside.is_file() and inside not in above and len(above) < 8
            put_in = self.whole(inside, counts, (*(above or (path,)), inside)) if is_ours else ""
            if put_in is None:
                return None
            parts += [source[at : match.start()], put_in]
            at, size = match.end(), size + len(put_in)
            if size > self.max_document_bytes:
                return None
        return "".join([*parts, source[at:]])


def latex_text(source: str) -> str:
    """The body of a document, macros written out; its title first."""
    before, _, body = source.partition("\\begin{document}")
    body = _BIBLIOGRAPHY.sub("", body.partition("\\end{document}")[0])
    title = _TITLE.search(source)
    macros = {name: told for name, told in _MACRO.findall(before) if "#" not in told}
    if macros:
        pattern = re.compile(
            r"\\(" + "|".join(sorted(map(re.escape, macros), key=len, reverse=True)) + r")(?![A-Za-z])"
        )
        for _ in range(_MOST_MACROS):  # a macro may hold another
            body, count = pattern.subn(lambda match: macros[match[1]], body)
            if not count or len(body) > 8 * len(source):
                break
    parts = [f"\\title{{{title[1].strip()}}}" if title and title.start() < len(before) else "", body.strip()]
    return _BLANK_LINES.sub("\n\n", "\n\n".join(filter(None, parts)))


@dataclasses.dataclass(frozen=True)
class MarkdownFiles:
    """.md files as they are, without front matter, of which date, language, licence and url are kept."""

    paths: Sequence[str]
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        text = whole_text(path, self.max_document_bytes, counts)
        if text is None:
            yield "too_long"
            return
        front = _FRONT_MATTER.match(text)
        told = {}
        for line in (front[1] if front else "").split("\n"):
            key, colon, value = line.partition(":")
            if colon and key.strip().lower() in _NAMES:
                told[_NAMES[key.strip().lower()]] = value.strip().strip("\"'")
        yield {"text": text[front.end() :] if front else text, **told}
