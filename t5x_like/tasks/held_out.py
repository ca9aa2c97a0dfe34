"""Which documents are held out for validation: whole files, single documents, or the end of each document.

A rule has `splits`, `files(split, files, root)`, `part(split, document)` (the document, a part of it, or None),
`share(split)` (of the text in those files) and `reads_every_file` (for every split). The choice hangs on names or texts
alone, never on order or number, so that adding files moves no file to the other side.
"""

import dataclasses
import hashlib
import pathlib

TRAIN, VALIDATION = "train", "validation"


@dataclasses.dataclass(frozen=True)
class ByFile:
    """Whole files, chosen by a hash of their name below the corpus folder: at least one, and never all."""

    fraction: float
    splits = (TRAIN, VALIDATION)
    reads_every_file = False

    def __post_init__(self):
        _check(self.fraction)

    def share(self, split: str) -> float:
        return 1.0

    def files(self, split: str, files: list[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
        if len(files) < 2:
            raise ValueError(f"{files[0]} is the only file, so no file can be held out: use ByDocument or Tail")
        draws = {path: _draw(path.relative_to(root).as_posix()) for path in files}
        by_draw = sorted(files, key=draws.__getitem__)
        held_out = [path for path in by_draw if draws[path] < self.fraction] or by_draw[:1]
        held_out = set(held_out[: len(files) - 1])
        return [path for path in files if (path in held_out) == (split == VALIDATION)]

    def part(self, split: str, document: dict[str, str]) -> dict[str, str]:
        return document


@dataclasses.dataclass(frozen=True)
class ByDocument:
    """Single documents, chosen by a hash of their text, so that copies of one text are on the same side."""

    fraction: float
    splits = (TRAIN, VALIDATION)
    reads_every_file = True

    def __post_init__(self):
        _check(self.fraction)

    def share(self, split: str) -> float:
        return self.fraction if split == VALIDATION else 1 - self.fraction

    def files(self, split: str, files: list[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
        return files

    def part(self, split: str, document: dict[str, str]) -> dict[str, str] | None:
        is_held_out = _draw("\0".join(document.values())) < self.fraction
        return document if is_held_out == (split == VALIDATION) else None


@dataclasses.dataclass(frozen=True)
class Tail:
    """The last `fraction` of the characters of every document, e.g. the end of a book (nanoGPT's Shakespeare)."""

    fraction: float
    splits = (TRAIN, VALIDATION)
    reads_every_file = True

    def __post_init__(self):
        _check(self.fraction)

    def share(self, split: str) -> float:
        return self.fraction if split == VALIDATION else 1 - self.fraction

    def files(self, split: str, files: list[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
        return files

    def part(self, split: str, document: dict[str, str]) -> dict[str, str] | None:
        cut = {name: int(len(text) * (1 - self.fraction)) for name, text in document.items()}
        sides = {
            name: text[cut[name] :] if split == VALIDATION else text[: cut[name]] for name, text in document.items()
        }
        return sides if any(sides.values()) else None


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Every document is for training."""

    splits = (TRAIN,)
    reads_every_file = False

    def share(self, split: str) -> float:
        return 1.0

    def files(self, split: str, files: list[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
        return files

    def part(self, split: str, document: dict[str, str]) -> dict[str, str]:
        return document


Rule = ByFile | ByDocument | Tail | Nothing


def _check(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"held-out fraction {fraction}: give a number between 0 and 1, e.g. 0.05")


def _draw(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone."""
    digest = hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
