"""Mapped files: what was read is given back when it is said, and is there when it is asked for again."""

import pathlib
import re

import numpy as np
import pyarrow as pa
import pytest

from t5x_like.corpus.mapped import let_go, open_mapped

MEGABYTES = 40


def megabytes_of_files() -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssFile:\s+(\d+) kB", status)[1]) / 1024


def test_what_was_read_does_not_stay_in_memory_once_it_is_let_go(tmp_path):
    path = tmp_path / "numbers.arrow"
    table = pa.table({"number": pa.array(np.arange(MEGABYTES << 17))})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    before = megabytes_of_files()
    column = open_mapped(path).read_all().column("number")
    numbers = column.chunk(0).to_numpy()
    total = int(numbers.sum())
    read = megabytes_of_files()
    let_go()
    after = megabytes_of_files()
    assert read - before > 0.9 * MEGABYTES and after - before < 0.3 * MEGABYTES
    assert int(numbers.sum()) == total == (MEGABYTES << 17) * ((MEGABYTES << 17) - 1) // 2


def test_a_file_that_is_empty_or_no_arrow_file_is_a_value_error(tmp_path):
    for content in (b"", b"text"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError):
            open_mapped(tmp_path / "x")
