"""One recipe over all that a crawl may hold: what can be read is kept, what cannot is counted, nothing ends."""

import gzip
import json
import os
import pathlib
import subprocess
import sys

import pytest
import zstandard

from tests.commands.command_line import t5x_like
from tests.corpus.test_steps import GOOD

MEGABYTE = 2**20
RECIPE = """
curate.sources = [@json/Source(), @text/Source(), @html/Source(), @wiki/Source(), @code/Source()]
json/Source.name = 'json'
json/Source.reader = @JsonLines()
JsonLines.paths = ['{folder}/*.jsonl*']
JsonLines.max_document_bytes = 2_000_000
text/Source.name = 'text'
text/Source.reader = @TextFiles()
TextFiles.paths = ['{folder}/*.txt*']
TextFiles.per = 'line'
TextFiles.max_document_bytes = 2_000_000
html/Source.name = 'html'
html/Source.reader = @HtmlFiles()
HtmlFiles.paths = ['{folder}/*.html']
wiki/Source.name = 'wiki'
wiki/Source.reader = @WikiDump()
WikiDump.paths = ['{folder}/*.xml']
code/Source.name = 'code'
code/Source.reader = @SourceTree()
SourceTree.folder = '{folder}/tree'
curate.steps = [@RepairText(), @Whitespace(), @ExactDuplicates()]
curate.shards = 1
"""

# The command, and behind it the most memory that its process held: what the parent held before counts in getrusage.
MEASURED = """
import sys
from t5x_like import launch
try:
    launch.main(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def line(text):
    return json.dumps({"text": text}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    whole = gzip.compress(b"\n".join(line(f"{GOOD} number {i}") for i in range(400)))
    (folder / "truncated.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "no_gzip.jsonl.gz").write_bytes(b"this is no gzip")
    zeros = gzip.compress(bytes(MEGABYTE), 9)
    (folder / "bomb.jsonl.gz").write_bytes(zeros * 600)  # 600 MB in one line, 600 kB on disk
    (folder / "bomb.txt.gz").write_bytes(
        gzip.compress(b"x" * MEGABYTE, 9) * 300 + gzip.compress(b"\nafter the long line\n")
    )
    wrong = [
        b'{"text": 5}',
        b'{"other": "x"}',
        b"[1, 2]",
        b"null",
        b'{"text": "x"',
        b"\xff\xfe{}",
        b'"' + b"[" * 100_000,
    ]
    wrong += [b'{"text": ' + b"[" * 100_000, b'{"text": "\\ud800 half a pair"}', line("a\x00b NUL bytes"), line("")]
    (folder / "wrong.jsonl").write_bytes(b"\n".join(wrong))
    (folder / "empty.jsonl").write_bytes(b"")
    mixed = ["Grüße in UTF-8".encode(), "Grüße in Latin-1".encode("latin-1"), "Привет in cp1251".encode("cp1251")]
    (folder / "mixed.txt").write_bytes(b"\n".join(mixed) + b"\n" + bytes(50) + b"zeros behind")
    (folder / "deep.html").write_text("<div>" * 60_000 + "deep" + "</div>" * 60_000)
    (folder / "page.html").write_text(f"<html><body><p>{GOOD.replace(chr(10), ' ')}</p></body></html>")
    (folder / "bomb.xml").write_text(
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><mediawiki><page>&b;</page></mediawiki>'
    )
    (folder / "cut.xml").write_text("<mediawiki><page><title>")
    tree = folder / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "a.py").write_text("print('code')\n")
    (tree / "inner" / "up").symlink_to(tree)
    (tree / "self.py").symlink_to(tree / "self.py")
    (folder / "recipe.gin").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="memory is read from /proc, as on Linux")
def test_what_can_be_read_is_kept_and_what_cannot_is_counted_in_little_memory(folder, tmp_path):
    command = [
        sys.executable,
        "-c",
        MEASURED,
        "curate",
        f"--gin_file={folder}/recipe.gin",
        f"output_dir={tmp_path}/out",
    ]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert int(done.stdout.split()[-1]) < 500 * 1024  # KiB; 900 MB of input stand in two lines
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    counts = manifest["counts"]
    unreadable = {name.split(": ")[1] for name in counts if name.startswith("unreadable: ")}
    assert unreadable >= {"truncated.jsonl.gz", "no_gzip.jsonl.gz", "bomb.xml", "cut.xml"}
    assert counts["reading: too_long"] >= 2 and counts["reading: bad_json"] >= 5
    assert counts["invalid_utf8"] >= 2
    kept = manifest["sources"]
    assert kept["json"]["documents"] > 100  # what stands before the damage
    assert kept["text"]["documents"] == 5 and kept["html"]["documents"] == 1 and kept["code"]["documents"] == 1
    texts = written(tmp_path / "out")
    assert (
        "after the long line" in texts
        and "Grüße in UTF-8" in texts
        and "half a pair" in texts
        and "\\u0000" not in texts
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "unreadable: truncated.jsonl.gz" in page and "reading: bad_json" in page


def written(folder) -> str:
    (path,) = folder.glob("part-*.zst")
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        return reader.read().decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("JsonLines.paths=['{folder}/none*']",), "no file matches"),
        (("JsonLines.paths='{folder}/empty.jsonl'",), "give a list"),
        (("SourceTree.folder='{folder}/page.html'",), "is a file: a code tree is a folder"),
        (("curate.shards=0",), "must be at least 1"),
        (("output_dir={folder}/empty.jsonl",), "cannot write to"),
        (("RepairText.x=1",), "RepairText"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(folder, tmp_path, arguments, message):
    given = [argument.format(folder=folder) for argument in arguments]
    told = t5x_like("curate", f"--gin_file={folder}/recipe.gin", f"output_dir={tmp_path}/out", *given)
    assert told.code == 2 and message in told.err and len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
