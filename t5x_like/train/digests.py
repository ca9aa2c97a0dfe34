"""Is this checkpoint what was written? One SHA-256 per file, sealed inside the folder before it gets its final name.

Orbax restores flipped bits without a word. So every step holds a file SHA256SUMS, which sha256sum reads
(`cd <step> && sha256sum -c SHA256SUMS` works); its last line is a comment with the digest of the lines above.
"""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable

MANIFEST = "SHA256SUMS"
# Two stamps that Orbax writes into the folder after the seal. Restoring reads neither.
UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")
THREADS = 8  # hashing releases the interpreter's lock, so it is bound by disk or cores


def seal(folder: pathlib.Path) -> None:
    """Writes the manifest of every file in `folder`, itself atomically and durably."""
    files = sealed_files(folder)
    lines = [f"{digest}  {file}\n" for file, digest in zip(files, in_threads(digest_of, folder, files), strict=True)]
    body = "".join(lines)
    temporary = folder / f"{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as out:
        out.write(body + self_digest(body))
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(folder / MANIFEST)


def is_sealed(folder: pathlib.Path) -> bool:
    return (folder / MANIFEST).is_file()


def problems(folder: pathlib.Path, part: int = 0, num_parts: int = 1) -> list[str]:
    """What differs from the manifest, one line each; nothing for a good checkpoint.

    Several processes share the reading: each hashes every `num_parts`-th file from number `part`.
    """
    try:
        expected = read_manifest(folder)
    except ValueError as error:
        return [str(error)]
    found = set(sealed_files(folder))
    wrong = [f"{file} is missing" for file in sorted(expected.keys() - found)]
    wrong += [f"{file} is not in {MANIFEST}" for file in sorted(found - expected.keys())]
    mine = sorted(expected.keys() & found)[part::num_parts]
    for file, digest in zip(mine, in_threads(digest_or_error, folder, mine), strict=True):
        if digest != expected[file]:
            wrong.append(f"{file} differs from what was written ({digest[:12]}, expected {expected[file][:12]})")
    return wrong


def read_manifest(folder: pathlib.Path) -> dict[str, str]:
    """File name to digest; ValueError when the manifest is missing or damaged itself."""
    try:
        text = (folder / MANIFEST).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{MANIFEST} cannot be read: {error}") from None
    body, mark, _ = text.rpartition("# ")
    if not mark or text != body + self_digest(body):
        raise ValueError(f"{MANIFEST} is damaged")
    pairs = (line.split("  ", 1) for line in body.splitlines())
    return {file: digest for digest, file in pairs}


def self_digest(body: str) -> str:
    return f"# {hashlib.sha256(body.encode()).hexdigest()}\n"


def sealed_files(folder: pathlib.Path) -> list[str]:
    """Every file below `folder` that a manifest speaks of, as sorted relative names."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(name for name in names if name not in (*UNSEALED, MANIFEST, f"{MANIFEST}.tmp"))


def digest_of(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_or_error(path: pathlib.Path) -> str:
    """The digest, or in its place why the file cannot be read: a disk error is damage, not a crash of the check."""
    try:
        return digest_of(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def in_threads(work: Callable[[pathlib.Path], str], folder: pathlib.Path, files: Iterable[str]) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, (folder / file for file in files)))
