"""XML as elements one after another: streamed, without entities of its own, and no element larger than a limit."""

import io
import pathlib
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree

from t5x_like.tasks.files import open_bytes

_SPACES = re.compile(r"\s+")


class Bounded(io.RawIOBase):
    """Bytes of a file; raises ValueError when `most` are read without a call of `start_anew`."""

    def __init__(self, file: Any, most: int):
        self._file, self._most, self._read = file, most, 0

    def start_anew(self) -> None:
        self._read = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, 1 << 16) if size > 0 else 1 << 16)
        self._read += len(data)
        if self._read > self._most:
            raise ValueError(
                f"an element is longer than {self._most:,} bytes: raise max_document_bytes, or leave it out"
            )
        return data


def elements(path: pathlib.Path, name: str, most: int) -> Iterator[Element]:
    """Every element `name` (without namespace) of a file that may be compressed; each is emptied when the next comes.

    most   bytes of one element
    Raises ValueError for what is no XML, declares entities, or holds too long an element.
    """
    with open_bytes(path) as file:
        bounded = Bounded(file, most)
        try:
            root = None
            for event, element in defusedxml.ElementTree.iterparse(bounded, events=("start", "end")):
                root = element if root is None else root
                if event == "end" and local(element) == name:
                    yield element
                    bounded.start_anew()
                    element.clear()
                    if element is not root:
                        root.clear()
        except defusedxml.DefusedXmlException as error:
            raise ValueError(
                f"{path.name} declares entities of its own ({type(error).__name__}): it is not read"
            ) from None
        except ParseError as error:
            raise ValueError(f"{path.name} is no XML, or damaged: {error}") from None


def local(element: Element) -> str:
    """The name without its namespace; empty for comments and the like."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def child(element: Element, *names: str) -> Element | None:
    """The first element at the end of a path of children; None if one of them is not there."""
    for name in names:
        element = next((one for one in element if local(one) == name), None)
        if element is None:
            return None
    return element


def text_of(element: Element | None, without: frozenset[str] = frozenset()) -> str:
    """All text inside with single spaces, but for that of elements named in `without`."""
    return _SPACES.sub(" ", "".join(_pieces(element, without))).strip() if element is not None else ""


def _pieces(element: Element, without: frozenset[str]) -> Iterator[str]:
    """A stack of its own: what is deeper than Python's is text too."""
    stack: list[Any] = [element]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
            continue
        after = [item.tail or ""] if item is not element else []
        if local(item) in without or not isinstance(item.tag, str):
            stack += after
            continue
        stack += [*after, *reversed(list(item)), item.text or ""]
