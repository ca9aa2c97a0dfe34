"""Arrow files of a corpus, mapped: read where they lie, so that memory does not grow with them.

What was read stays in a process until the system needs the place, and counts as its memory. So who goes through whole
files says from time to time that it is done with what it saw (`let_go`).
"""

import mmap
import os
import pathlib
import weakref

import pyarrow as pa

_MAPS: weakref.WeakSet = weakref.WeakSet()


def open_mapped(path: str | os.PathLike) -> pa.RecordBatchFileReader:
    with pathlib.Path(path).open("rb") as file:
        area = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _MAPS.add(area)
    return pa.ipc.open_file(pa.py_buffer(area))


def let_go() -> None:
    """Of all mapped files nothing need stay in memory; what is asked for again is read again."""
    for area in list(_MAPS):
        area.madvise(mmap.MADV_DONTNEED)
