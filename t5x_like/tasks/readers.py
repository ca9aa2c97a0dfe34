"""Documents from files: text, JSON lines, Parquet and code trees. No TensorFlow: `tokenizer` reads what tasks read.

A reader is a frozen dataclass with these methods:

  names()                  the fields of a document
  files()                  every file, sorted; a missing one is an error that names its nearest neighbours
  root()                   the folder that file names are told from, so that a moved corpus is split in the same way
  documents(path, counts)  the documents of one file as {field: text}, or the reason (a word) why one was dropped

Dropped documents keep their place in the order, so that which shard counts them does not depend on their content.
Invalid UTF-8 is decoded with U+FFFD and counted; a byte-order mark at the start of a file is not text; CRLF stays.
"""

import ast
import collections
import dataclasses
import fnmatch
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from t5x_like.tasks.files import expand, open_bytes

Counts = collections.Counter
Item = dict[str, str] | str  # a document by fields, or the reason why it was dropped

MAX_DOCUMENT_BYTES = 16 * 2**20
_READ_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """One document per file, per paragraph (between blank lines) or per line. Files may be .gz or .zst.

    A file longer than `max_document_bytes` becomes several documents, cut after a newline; a longer paragraph or line
    is dropped and counted.
    """

    paths: Sequence[str]
    per: str = "file"
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def __post_init__(self):
        if self.per not in ("file", "paragraph", "line"):
            raise ValueError(f"per={self.per!r}: a document is a 'file', a 'paragraph' or a 'line'")

    def names(self) -> list[str]:
        return ["text"]

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def root(self) -> pathlib.Path:
        return _root(self.files())

    def documents(self, path: pathlib.Path, counts: Counts) -> Iterator[Item]:
        with open_bytes(path) as file:
            if self.per == "file":
                parts = _cut(file, self.max_document_bytes, path)
            elif self.per == "line":
                parts = lines(file, self.max_document_bytes, path)
            else:
                parts = _paragraphs(lines(file, self.max_document_bytes, path), self.max_document_bytes)
            for part in parts:
                yield part if isinstance(part, str) else _text_item(part, counts)


@dataclasses.dataclass(frozen=True)
class JsonLines:
    """One JSON object per line, of which `fields` are read: .jsonl, .jsonl.gz or .jsonl.zst."""

    paths: Sequence[str]
    fields: Sequence[str] = ("text",)
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def names(self) -> list[str]:
        return list(self.fields)

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def root(self) -> pathlib.Path:
        return _root(self.files())

    def documents(self, path: pathlib.Path, counts: Counts) -> Iterator[Item]:
        with open_bytes(path) as file:
            for line in lines(file, self.max_document_bytes, path):
                if isinstance(line, str):
                    yield line
                elif line.strip():  # an empty line, as at the end of a file, is not a record
                    yield self._parse(line, counts)

    def _parse(self, line: bytes, counts: Counts) -> Item:
        try:
            record = json.loads(decode(line, counts))
        except (ValueError, RecursionError):
            return "bad_json"
        if not isinstance(record, dict):
            return "bad_json"
        return pick(record, self.fields)


@dataclasses.dataclass(frozen=True)
class Parquet:
    """The string columns `fields` of Parquet files, read row group by row group. Needs pyarrow (the `tasks` extra)."""

    paths: Sequence[str]
    fields: Sequence[str] = ("text",)
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def names(self) -> list[str]:
        return list(self.fields)

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def root(self) -> pathlib.Path:
        return _root(self.files())

    def documents(self, path: pathlib.Path, counts: Counts) -> Iterator[Item]:
        import pyarrow.parquet  # only here: the core install trains tokenizers on text without it

        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                if missing := sorted(set(self.fields) - set(table.schema_arrow.names)):
                    raise ValueError(f"{path} has no column {missing}: it has {table.schema_arrow.names}")
                for batch in table.iter_batches(columns=list(self.fields), batch_size=1024):
                    for record in batch.to_pylist():
                        yield self._limit(pick(record, self.fields))
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is damaged or not a Parquet file: {str(error).splitlines()[0]}") from error

    def _limit(self, item: Item) -> Item:
        if isinstance(item, dict) and sum(map(len, item.values())) > self.max_document_bytes:
            return "too_long"
        return item


@dataclasses.dataclass(frozen=True)
class CodeTree:
    """The source files below `folder`: one document per file, as {"text": ..., "path": ...}.

    Left out: folders that match `exclude` (by name), hidden folders, symbolic links. Dropped and counted: larger than
    `max_file_bytes` (too_long), with a NUL byte (binary), with lines of over 1,000 characters on average or one of over
    100,000 (minified, or data written as code), and Python that does not parse where `must_parse` (unparsable).
    """

    folder: str
    suffixes: Sequence[str] = (".py",)
    exclude: Sequence[str] = (
        "__pycache__",
        "site-packages",
        "dist-packages",
        "node_modules",
        "test",
        "tests",
        "idlelib",
    )
    max_file_bytes: int = 2**20
    must_parse: bool = False

    def names(self) -> list[str]:
        return ["text", "path"]

    def files(self) -> list[pathlib.Path]:
        if not pathlib.Path(self.folder).is_dir():
            expand([self.folder])  # raises with the nearest names
            raise ValueError(f"{self.folder} is a file: a code tree is a folder")
        found = []
        for folder, names, files in os.walk(self.folder):
            names[:] = sorted(name for name in names if not self._excluded(name))
            found += [pathlib.Path(folder, name) for name in files if name.endswith(tuple(self.suffixes))]
        found = sorted(path for path in found if not path.is_symlink())
        if not found:
            raise FileNotFoundError(f"no file below {self.folder} ends in {', '.join(self.suffixes)}")
        return found

    def root(self) -> pathlib.Path:
        return pathlib.Path(self.folder)

    def documents(self, path: pathlib.Path, counts: Counts) -> Iterator[Item]:
        if path.stat().st_size > self.max_file_bytes:
            yield "too_long"
            return
        item = _text_item(path.read_bytes(), counts)
        if isinstance(item, dict):
            reason = self._reason(item["text"])
            item = reason or item | {"path": path.relative_to(self.folder).as_posix()}
        yield item

    def _excluded(self, name: str) -> bool:
        return name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in self.exclude)

    def _reason(self, text: str) -> str | None:
        sizes = [len(line) for line in text.splitlines()] or [0]
        if "\0" in text:
            return "binary"
        if sum(sizes) / len(sizes) > 1000 or max(sizes) > 100_000:
            return "minified"
        return "unparsable" if self.must_parse and not _parses(text) else None


Reader = TextFiles | JsonLines | Parquet | CodeTree


def read_texts(reader: Reader, field: str, counts: Counts) -> Iterator[str]:
    """One field of every document, in order; for training a tokenizer. Drops are counted in `counts`."""
    for path in reader.files():
        for item in reader.documents(path, counts):
            if isinstance(item, str):
                counts[item] += 1
            else:
                counts["documents"] += 1
                yield item[field]


def reader_for(path: str, *, field: str = "text") -> Reader:
    """The reader that fits a path: a folder of code or text, a text file, .jsonl(.gz, .zst) or .parquet."""
    place = pathlib.Path(path)
    if place.is_dir():
        return _reader_for_folder(place, field)
    expand([path])  # a missing file is an error here rather than later
    name = place.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return JsonLines([path], fields=(field,))
    if name.endswith(".parquet"):
        return Parquet([path], fields=(field,))
    return TextFiles([path])


def _reader_for_folder(folder: pathlib.Path, field: str) -> Reader:
    suffixes = collections.Counter(path.suffix for path in folder.rglob("*") if path.is_file())
    jsonl = [f"{folder}/**/*.jsonl{end}" for end in ("", ".gz", ".zst") if any(folder.rglob(f"*.jsonl{end}"))]
    if jsonl:
        return JsonLines(jsonl, fields=(field,))
    if suffixes[".parquet"]:
        return Parquet([f"{folder}/**/*.parquet"], fields=(field,))
    if suffixes[".py"]:
        return CodeTree(str(folder))
    if suffixes[".txt"] or suffixes[".md"]:
        return TextFiles([f"{folder}/**/*{suffix}" for suffix in (".txt", ".md") if suffixes[suffix]])
    raise ValueError(f"{folder} has no .jsonl, .parquet, .py, .txt or .md file; name the files, or write a task file")


def decode(data: bytes, counts: Counts) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        counts["invalid_utf8"] += 1
        return data.decode("utf-8", errors="replace")


def whole_text(path: pathlib.Path, max_bytes: int, counts: Counts) -> str | None:
    """A file decompressed and decoded, newlines as \\n; None if it is longer than `max_bytes`."""
    with open_bytes(path) as file:
        data = file.read(max_bytes + 1)
    return None if len(data) > max_bytes else decode(data, counts).removeprefix("\ufeff").replace("\r\n", "\n")


def pick(record: dict, fields: Sequence[str]) -> Item:
    """The named fields of a record, or why it is dropped. A lone surrogate (JSON can write one) becomes U+FFFD."""
    if any(not isinstance(record.get(field), str) for field in fields):
        return "missing_field"
    texts = {
        field: record[field].encode("utf-8", errors="surrogatepass").decode("utf-8", "replace") for field in fields
    }
    return texts if any(text.strip() for text in texts.values()) else "empty"


def lines(file, max_bytes: int, path: pathlib.Path) -> Iterator[bytes | str]:
    """Lines without their newline; "too_long" in place of one over `max_bytes`, which is never held in memory."""
    while line := _read_line(file, max_bytes, path):
        if len(line) > max_bytes and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = _read_line(file, _READ_BYTES, path)
            yield "too_long"
        else:
            yield line.removesuffix(b"\n").removesuffix(b"\r")


def _read_line(file, max_bytes: int, path: pathlib.Path) -> bytes:
    try:
        return file.readline(max_bytes + 1)
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error


def _cut(file, max_bytes: int, path: pathlib.Path) -> Iterator[bytes]:
    """The whole file, in parts of at most `max_bytes` that end after a newline where there is one."""
    part = b""
    while line := _read_line(file, max_bytes - 1, path):
        if part and len(part) + len(line) > max_bytes:
            yield part
            part = b""
        part += line
    yield part


def _paragraphs(source: Iterator[bytes | str], max_bytes: int) -> Iterator[bytes | str]:
    """Lines between blank lines, joined; a reason in place of a paragraph that is too long or holds a line that is."""
    held, size = [], 0
    for line in source:
        if isinstance(line, str):
            held, size = [line], max_bytes + 1
        elif line.strip():
            held, size = (held + [line] if size <= max_bytes else held), size + len(line) + 1
        elif held:
            yield b"\n".join(held) if size <= max_bytes + 1 and isinstance(held[0], bytes) else "too_long"
            held, size = [], 0
    if held:
        yield b"\n".join(held) if size <= max_bytes + 1 and isinstance(held[0], bytes) else "too_long"


def _text_item(data: bytes, counts: Counts) -> Item:
    text = decode(data, counts).removeprefix("\ufeff")
    return {"text": text} if text.strip() else "empty"


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _root(files: list[pathlib.Path]) -> pathlib.Path:
    return pathlib.Path(os.path.commonpath([path.parent for path in files]))
