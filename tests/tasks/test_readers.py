import gzip
import json
from collections import Counter

import pytest

from t5x_like.tasks import files, held_out, readers
from t5x_like.tasks.readers import CodeTree, JsonLines, Parquet, TextFiles

zstandard = pytest.importorskip("zstandard", reason="the `tasks` extra is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="the `tasks` extra is not installed")


def read(reader):
    """(documents, counts): every document of every file."""
    counts = Counter()
    items = [item for path in reader.files() for item in reader.documents(path, counts)]
    counts.update(item for item in items if isinstance(item, str))
    return [item for item in items if not isinstance(item, str)], dict(counts)


def texts(reader):
    return [item["text"] for item in read(reader)[0]]


def write_json_lines(path, records, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_text_files_are_documents_paragraphs_or_lines(tmp_path):
    text = "one\ntwo\n\n\nthree\n  \nfour"
    (tmp_path / "a.txt").write_text(text)
    assert texts(TextFiles([f"{tmp_path}/a.txt"])) == [text]
    assert texts(TextFiles([f"{tmp_path}/a.txt"], per="paragraph")) == ["one\ntwo", "three", "four"]
    assert texts(TextFiles([f"{tmp_path}/a.txt"], per="line")) == ["one", "two", "three", "four"]
    with pytest.raises(ValueError, match="a 'file', a 'paragraph' or a 'line'"):
        TextFiles(["a"], per="page")


def test_a_long_file_is_cut_after_newlines_and_loses_nothing(tmp_path):
    text = "".join(f"line {k}\n" for k in range(500)) + "é" * 100
    (tmp_path / "a.txt").write_text(text)
    parts = texts(TextFiles([f"{tmp_path}/a.txt"], max_document_bytes=256))
    assert "".join(parts) == text
    assert len(parts) > 10 and all(len(part.encode()) <= 256 for part in parts)
    assert all(part.endswith("\n") for part in parts[:-2])


def test_invalid_utf8_is_repaired_and_counted_and_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfgood\nbad \xff byte\r\n")
    documents, counts = read(TextFiles([f"{tmp_path}/a.txt"]))
    assert documents == [{"text": "good\nbad \ufffd byte\r\n"}]
    assert counts == {"invalid_utf8": 1}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_are_read_whatever_the_compression(tmp_path, suffix):
    records = [{"text": f"document {k}", "other": k} for k in range(100)]
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(data) + pack(data))  # two members, as `cat` makes them
    assert texts(JsonLines([f"{tmp_path}/*.jsonl{suffix}"])) == [record["text"] for record in records] * 2


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix):
    data = b"".join(b'{"text": "%d"}\n' % k for k in range(50_000))
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix](data)
    (tmp_path / f"cut.jsonl{suffix}").write_bytes(pack[: len(pack) * 2 // 3])
    with pytest.raises(ValueError, match=rf"cut\.jsonl{suffix} is truncated or damaged"):
        read(JsonLines([f"{tmp_path}/cut.jsonl{suffix}"]))


def test_bad_records_are_dropped_with_a_reason_each(tmp_path):
    lines = [
        b'{"text": "good"}',
        b"not json",
        b'{"text": 5}',
        b'{"other": "x"}',
        b'["text"]',
        b'{"text": "  "}',
        b"[" * 5000,
        b'{"text": "' + b"x" * 2000 + b'"}',
        b'{"text": "surrogate \\ud800"}',
        b'{"text": "\xff"}',
        b"",
        b'{"text": "last, without a newline"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    documents, counts = read(JsonLines([f"{tmp_path}/a.jsonl"], max_document_bytes=1000))
    assert [document["text"][:9] for document in documents] == ["good", "surrogate", "\ufffd", "last, wit"]
    expected = {"bad_json": 2, "missing_field": 2, "empty": 1, "too_long": 2, "invalid_utf8": 1}
    assert counts == expected


def test_a_huge_line_is_passed_over_in_pieces(tmp_path):
    with gzip.open(tmp_path / "bomb.txt.gz", "wb") as file:
        file.write(b"before\n" + b"x" * 30_000_000 + b"\nafter\n")
    documents, counts = read(TextFiles([f"{tmp_path}/bomb.txt.gz"], per="line", max_document_bytes=1000))
    assert [document["text"] for document in documents] == ["before", "after"] and counts == {"too_long": 1}


def test_parquet_columns_are_read_and_a_missing_one_is_an_error(tmp_path):
    import pyarrow.parquet

    table = pyarrow.table({"inputs": ["a", None, "c"], "targets": ["x", "y", "z"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    documents, counts = read(Parquet([f"{tmp_path}/a.parquet"], fields=("inputs", "targets")))
    assert documents == [{"inputs": "a", "targets": "x"}, {"inputs": "c", "targets": "z"}]
    assert counts == {"missing_field": 1}
    with pytest.raises(ValueError, match=r"no column \['text'\]: it has \['inputs', 'targets'\]"):
        read(Parquet([f"{tmp_path}/a.parquet"]))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"b\.parquet is damaged"):
        read(Parquet([f"{tmp_path}/b.parquet"], fields=("inputs",)))


def test_a_code_tree_leaves_out_what_its_rules_say(tmp_path):
    good = {"a.py": "x = 1\n", "package/b.py": "y = 2\n"}
    others = {
        "tests/test_a.py": "hidden",
        ".git/c.py": "hidden",
        "package/__pycache__/b.py": "hidden",
        "notes.txt": "not code",
        "minified.py": "x" * 5000,
        "binary.py": "a\0b",
        "empty.py": "\n",
        "long.py": "x = 1\n" * 1000,
    }
    for name, text in {**good, **others}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    documents, counts = read(CodeTree(str(tmp_path), max_file_bytes=5500))
    assert {document["path"]: document["text"] for document in documents} == good
    assert counts == {"minified": 1, "binary": 1, "empty": 1, "too_long": 1}


def test_python_that_does_not_parse_can_be_dropped(tmp_path):
    (tmp_path / "a.py").write_text("def f(:\n")
    (tmp_path / "b.py").write_text("def f(): pass\n")
    assert read(CodeTree(str(tmp_path), must_parse=True))[1] == {"unparsable": 1}


def test_a_missing_file_names_the_pattern_and_its_neighbours(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match=r"no file matches .*corpos\.jsonl: in .* there is corpus\.jsonl"):
        JsonLines([f"{tmp_path}/corpos.jsonl"]).files()
    with pytest.raises(FileNotFoundError, match=r"there is corpus\.jsonl"):
        readers.reader_for(f"{tmp_path}/corpus.json")
    with pytest.raises(FileNotFoundError, match="nothing called missing"):
        CodeTree(f"{tmp_path}/missing/deeper").files()
    with pytest.raises(ValueError, match="give a list"):
        TextFiles("a.txt").files()


def test_the_reader_fits_the_path(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x")
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    assert isinstance(readers.reader_for(f"{tmp_path}/code"), CodeTree)
    assert isinstance(readers.reader_for(f"{tmp_path}/prose"), TextFiles)
    for name, kind in {"a.jsonl.gz": JsonLines, "a.parquet": Parquet, "a.txt": TextFiles, "README": TextFiles}.items():
        (tmp_path / name).write_text("x")
        assert isinstance(readers.reader_for(f"{tmp_path}/{name}"), kind)
    with pytest.raises(ValueError, match=r"has no \.jsonl"):
        readers.reader_for(f"{tmp_path}/empty")


def test_the_fingerprint_follows_names_sizes_and_contents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = files.fingerprint([path], tmp_path)
    assert files.fingerprint([path], tmp_path) == before
    path.write_text("two")
    assert files.fingerprint([path], tmp_path) != before


def paths_of(tmp_path, count):
    return [tmp_path / f"{k}.txt" for k in range(count)]


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_files_are_held_out_whole_stably_and_never_all(tmp_path, count):
    rule, paths = held_out.ByFile(0.05), paths_of(tmp_path, count)
    train, validation = (rule.files(split, paths, tmp_path) for split in rule.splits)
    assert sorted(train + validation) == sorted(paths) and train and validation
    if count == 1000:
        assert 30 < len(validation) < 75
        more = rule.files("validation", paths_of(tmp_path, 1100), tmp_path)
        assert set(validation) <= set(more)


def test_a_single_file_cannot_be_held_out(tmp_path):
    with pytest.raises(ValueError, match=r"only file.*use ByDocument or Tail"):
        held_out.ByFile(0.05).files("train", paths_of(tmp_path, 1), tmp_path)
    with pytest.raises(ValueError, match="between 0 and 1"):
        held_out.ByDocument(1.0)


def test_copies_of_a_document_are_on_one_side():
    rule = held_out.ByDocument(0.3)
    for k in range(200):
        sides = [split for split in rule.splits if rule.part(split, {"text": f"document {k}"})]
        assert len(sides) == 1


def test_the_tail_is_the_last_part_of_each_document():
    rule = held_out.Tail(0.1)
    document = {"text": "".join(map(str, range(1000)))}
    train, validation = (rule.part(split, document)["text"] for split in rule.splits)
    assert train + validation == document["text"]
    assert len(train) == int(len(document["text"]) * 0.9)


def test_a_file_that_links_lead_to_in_several_ways_is_read_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("one")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b.txt").symlink_to(tmp_path / "a" / "one.txt")
    (tmp_path / "c.txt").write_text("other")
    assert files.expand([f"{tmp_path}/**/*.txt"]) == [tmp_path / "b.txt", tmp_path / "c.txt"]
