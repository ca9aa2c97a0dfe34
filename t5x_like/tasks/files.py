"""Files of a corpus: globs to sorted paths, compressed files to bytes, and a fingerprint of their state."""

import bz2
import difflib
import glob
import gzip
import hashlib
import io
import pathlib
from collections.abc import Sequence

_SAMPLE_BYTES = 65536
_COMPRESSED_BYTES = 8192  # small, so that a zip bomb is met by the line limit before it fills the memory


def expand(paths: Sequence[str]) -> list[pathlib.Path]:
    """Every file that the paths and globs (`**` for any depth) name, sorted, each once.

    A file that links lead to in several ways is one file, under the shortest of its names: a link to a folder above
    itself would give it forty.
    """
    if isinstance(paths, str | pathlib.PurePath):
        raise ValueError(f"paths={str(paths)!r}: give a list, e.g. [{str(paths)!r}]")
    found = set()
    for pattern in map(str, paths):
        names = [pattern] if pathlib.Path(pattern).is_file() else glob.glob(pattern, recursive=True)
        files = {pathlib.Path(name) for name in names if pathlib.Path(name).is_file()}
        if not files:
            raise FileNotFoundError(f"no file matches {pattern}{_nearest(pattern)}")
        found |= files
    if not found:
        raise ValueError("paths is empty: name at least one file")
    by_place: dict[pathlib.Path, pathlib.Path] = {}
    for path in sorted(found, key=lambda path: (len(path.parts), path)):
        by_place.setdefault(path.resolve(), path)
    return sorted(by_place.values())


def open_bytes(path: pathlib.Path) -> io.BufferedIOBase:
    """The file's bytes, decompressed by its suffix; a truncated file raises, which tf.data's gzip does not."""
    if path.suffix == ".bz2":
        return bz2.open(path, "rb")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstandardFile(path))
    return path.open("rb")


def fingerprint(files: Sequence[pathlib.Path], root: pathlib.Path) -> str:
    """SHA-256 over names, sizes, modification times, and the first and last 64 KiB of each file."""
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(status.st_size - _SAMPLE_BYTES, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


class _ZstandardFile(io.RawIOBase):
    """Decompressed bytes of a .zst file; raises EOFError when it is cut short, which `stream_reader` passes over."""

    def __init__(self, path: pathlib.Path):
        import zstandard  # only here: the core install trains tokenizers on plain text without it

        self._file, self._new = path.open("rb"), zstandard.ZstdDecompressor().decompressobj
        self._frame, self._ready, self._error = self._new(), b"", zstandard.ZstdError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            data = data or self._file.read(_COMPRESSED_BYTES)
            if not data and not self._frame.eof and self._file.tell():
                raise EOFError("the compressed file ends in the middle of a frame")
            if not data:
                return 0
            if self._frame.eof:
                self._frame = self._new()
            try:
                self._ready = self._frame.decompress(data)
            except self._error as error:
                raise OSError(str(error)) from error
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _nearest(pattern: str) -> str:
    """The part of the path that exists, and the names there that are nearest to the one that does not."""
    path = pathlib.Path(pattern)
    folder = next((parent for parent in path.parents if parent.is_dir()), pathlib.Path("."))
    depth = 0 if folder == pathlib.Path(".") else len(folder.parts)
    wanted = path.parts[depth] if depth < len(path.parts) else path.name
    near = difflib.get_close_matches(wanted, [entry.name for entry in folder.iterdir()], n=3, cutoff=0.5)
    return f": in {folder} there is {', '.join(near)}" if near else f": {folder} has nothing called {wanted}"
