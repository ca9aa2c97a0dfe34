"""Records of a prepared task."""

import numpy as np
import pytest

from t5x_like.data import prepared, ragged

DTYPES = {"inputs": "uint16", "targets": "int32"}


def examples(count, rng):
    lengths = rng.integers(0, 40, (count, 2))
    return [{"inputs": rng.integers(0, 2**16, n), "targets": rng.integers(0, 2**31, m)} for n, m in lengths.tolist()]


@pytest.mark.parametrize("per_record", [1, 3, 50])
def test_decoding_is_the_inverse_of_encoding(per_record):
    rng = np.random.default_rng(0)
    given, ends = examples(50, rng), rng.random(50) < 0.5
    groups = [slice(i, i + per_record) for i in range(0, 50, per_record)]
    records = [prepared.encode_record(given[g], ends[g].tolist(), DTYPES) for g in groups]
    found = prepared.decode_records(records, DTYPES)
    assert found.ends.tolist() == ends.tolist()
    for name in DTYPES:
        rows = ragged.to_list(found.features[name])
        assert [row.tolist() for row in rows] == [example[name].tolist() for example in given]


def test_a_record_takes_short_examples_until_it_is_full_and_none_is_left_behind(tmp_path):
    writer = prepared.ShardWriter(tmp_path / "a", {"targets": "uint16"}, tokens_per_record=10)
    lengths = [4, 4, 4, 30, 1, 1]
    for number, length in enumerate(lengths):
        writer.write({"targets": np.full(length, number)}, ends_document=number != 3)
    row = writer.close()
    assert (row["examples"], row["records"]) == (6, 3)  # 4 4 4 | 30 | 1 1
    reader = prepared.array_record_module.ArrayRecordReader(str(tmp_path / "a"))
    found = prepared.decode_records(reader.read([2, 0]), {"targets": "uint16"})
    assert found.features["targets"].lengths.tolist() == [1, 1, 4, 4, 4]
    assert found.ends.all()
