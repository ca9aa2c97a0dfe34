"""Can this folder take what we are about to write? Asked before the work, because Orbax takes 300 s to notice."""

import errno
import os
import pathlib
import shutil
import tempfile


def probe_writable(folder: pathlib.Path) -> None:
    """Makes `folder`, writes, renames and deletes a file in it; raises one sentence when any of that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".write-probe-", dir=folder)
        try:
            os.write(descriptor, b"probe")
            os.fsync(descriptor)
            os.rename(name, f"{name}.moved")
            name = f"{name}.moved"
        finally:
            os.close(descriptor)
            os.unlink(name)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to {folder}: {error.strerror}; choose another folder or correct its permissions"
        ) from None


def require_free(folder: pathlib.Path, num_bytes: int) -> None:
    """Raises when the file system of `folder` has less than `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{folder} has {free / 1e9:.2f} GB free and {num_bytes / 1e9:.2f} GB are needed; "
            "delete something there or choose another folder",
        )
