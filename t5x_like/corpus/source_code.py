"""Source trees: the files of many languages below a folder, with language and licence; generated ones left out."""

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Sequence

from t5x_like.tasks.readers import CodeTree

LANGUAGES = {
    **dict.fromkeys([".py", ".pyi"], "python"),
    **dict.fromkeys([".c", ".h"], "c"),
    **dict.fromkeys([".cc", ".cpp", ".cxx", ".hpp", ".hh"], "c++"),
    **dict.fromkeys([".js", ".mjs", ".cjs", ".jsx"], "javascript"),
    **dict.fromkeys([".ts", ".tsx"], "typescript"),
    **dict.fromkeys([".sh", ".bash"], "shell"),
    **dict.fromkeys([".pl", ".pm"], "perl"),
    **dict.fromkeys([".hs", ".lhs"], "haskell"),
    **dict.fromkeys([".ml", ".mli"], "ocaml"),
    **dict.fromkeys([".html", ".htm"], "html"),
    **{".java": "java", ".go": "go", ".rs": "rust", ".rb": "ruby", ".php": "php", ".cs": "c#", ".swift": "swift"},
    **{".kt": "kotlin", ".scala": "scala", ".jl": "julia", ".r": "r", ".R": "r", ".lua": "lua", ".sql": "sql"},
    **{".css": "css", ".md": "markdown", ".tex": "tex", ".f90": "fortran", ".lisp": "lisp", ".el": "lisp"},
    **{".dart": "dart", ".ex": "elixir", ".erl": "erlang", ".clj": "clojure", ".cu": "cuda", ".proto": "protobuf"},
}
_INTERPRETER = re.compile(r"\A#!.*?\b(python|bash|sh|perl|ruby|node|lua|php)[\d.]*\b")
_OF_INTERPRETER = {"bash": "shell", "sh": "shell", "node": "javascript"}
_CPP = re.compile(r"^\s*(?:class\s+\w+|namespace\s+\w+|template\s*<|using\s+\w+|#include\s*<\w+>)", re.MULTILINE)
_GENERATED = re.compile(
    r"@generated|do not edit|(?:auto[- ]?|automatically |machine[- ])generated|generated (?:by|from|with)\b",
    re.IGNORECASE,
)
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING)(\.(txt|md|rst))?", re.IGNORECASE)
_SPDX = re.compile(r"SPDX-License-Identifier:\s*\(?([\w.+-]+(?: (?:OR|AND|WITH) [\w.+-]+)*)")
_LICENCES = (
    ("Apache-2.0", re.compile(r"apache license,? version 2\.0|licenses/LICENSE-2\.0", re.IGNORECASE)),
    ("MIT", re.compile(r"permission is hereby granted, free of charge|\bMIT license\b", re.IGNORECASE)),
    ("MPL-2.0", re.compile(r"mozilla public license,? v(?:ersion|\.) ?2\.0", re.IGNORECASE)),
    ("AGPL-3.0", re.compile(r"gnu affero general public license", re.IGNORECASE)),
    ("LGPL", re.compile(r"gnu lesser general public license", re.IGNORECASE)),
    ("GPL-3.0", re.compile(r"gnu general public license.{0,200}version 3", re.IGNORECASE | re.DOTALL)),
    ("GPL", re.compile(r"gnu general public license", re.IGNORECASE)),
    ("BSD", re.compile(r"redistribution and use in source and binary forms|\bBSD license\b", re.IGNORECASE)),
    ("PSF-2.0", re.compile(r"python software foundation license", re.IGNORECASE)),
)
_HEAD = 4000  # characters in which a licence and a note of generation stand


@dataclasses.dataclass(frozen=True)
class SourceTree:
    """One document a file: {"text", "path", "language", "licence"}, the language by suffix, first line and content.

    Folders, links, large, binary and minified files as in CodeTree; files that say that a program wrote them are left
    out as generated. A licence is that of a file's header, else that of the nearest LICENSE or COPYING above it.
    `licences`: only files with one of these; empty: all, those without one too.
    """

    folder: str
    suffixes: Sequence[str] = tuple(LANGUAGES)
    licences: Sequence[str] = ()
    max_file_bytes: int = 2**20

    def __post_init__(self):
        if unknown := sorted(set(self.suffixes) - set(LANGUAGES)):
            raise ValueError(f"suffixes {unknown}: known are {', '.join(sorted(LANGUAGES))}")

    def tree(self) -> CodeTree:
        return CodeTree(self.folder, suffixes=self.suffixes, max_file_bytes=self.max_file_bytes)

    def files(self) -> list[pathlib.Path]:
        return self.tree().files()

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        for item in self.tree().documents(path, counts):
            if isinstance(item, str):
                yield item
                continue
            head = item["text"][:_HEAD]
            licence = licence_of(head) or licence_of_folder(path.parent, pathlib.Path(self.folder))
            if _GENERATED.search("\n".join(head.split("\n")[:12])):
                yield "generated"
            elif self.licences and licence not in self.licences:
                yield "other_licence"
            else:
                yield {**item, "language": language_of(path, item["text"]), "licence": licence}


def language_of(path: pathlib.Path, text: str) -> str:
    """By the first line of a script, else the suffix; a header of C that is one of C++ is told by what it declares."""
    if match := _INTERPRETER.match(text):
        return _OF_INTERPRETER.get(match[1], match[1])
    language = LANGUAGES.get(path.suffix, "")
    return "c++" if path.suffix == ".h" and _CPP.search(text[: 4 * _HEAD]) else language


@functools.lru_cache(maxsize=4096)
def licence_of_folder(folder: pathlib.Path, root: pathlib.Path) -> str:
    """Of the nearest folder from this one up to the root that has a file LICENSE, COPYING and so on."""
    for path in sorted(folder.glob("[LC][IOio][CPcp]*")):
        if _LICENCE_FILE.fullmatch(path.name) and path.is_file():
            with path.open("rb") as file:
                return licence_of(file.read(4 * _HEAD).decode("utf-8", errors="replace"))
    return licence_of_folder(folder.parent, root) if folder != root and root in folder.parents else ""


def licence_of(head: str) -> str:
    """Of the beginning of a file: the SPDX identifier, or what the usual headers say; empty if there is none."""
    if match := _SPDX.search(head):
        return match[1]
    flat = re.sub(r"[\s/*#;%-]+", " ", head)
    return next((name for name, pattern in _LICENCES if pattern.search(flat)), "")
