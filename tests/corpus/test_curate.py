"""A recipe from raw files to shards: the same survivors however it is run, and nothing that is lost without a word."""

import collections
import gzip
import json
import random
import resource
import shutil
import signal

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from t5x_like.corpus import run
from t5x_like.corpus.c4 import C4
from t5x_like.corpus.cleaning import RepairText, Whitespace
from t5x_like.corpus.curate import curate
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.minhash import MinHash
from t5x_like.corpus.sources import Source
from t5x_like.tasks.readers import JsonLines
from tests.commands.command_line import succeed, t5x_like


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Each file a part, as large ones are."""
    monkeypatch.setattr(run, "PART_BYTES", 1)


STEPS = (RepairText(), Whitespace(), C4(), ExactDuplicates(), MinHash())


def page(seed: int, sentences: int = 12) -> str:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghij", k=5)) for _ in range(sentences * 9)]  # digits would all be 0
    return "\n".join(" ".join(words[9 * i : 9 * i + 9]) + "." for i in range(sentences))


def write_pages(folder):
    """60 pages in 3 files: some twice, some with one word changed, some too short for C4."""
    folder.mkdir()
    pages = [page(seed) for seed in range(40)]
    pages += pages[:8] + [text.replace("a", "x", 1) for text in pages[8:16]] + ["short.\n"] * 4
    random.Random(0).shuffle(pages)
    for number in range(3):
        rows = [json.dumps({"text": text, "url": f"x/{i}"}) for i, text in enumerate(pages[number::3])]
        with gzip.open(folder / f"{number}.jsonl.gz", "wt") as file:
            file.write("\n".join([*rows, "{broken"]) + "\n")
    return pages


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "pages"
    write_pages(folder)
    return folder


def recipe(raw, **changes):
    reader = JsonLines([f"{raw}/*.jsonl.gz"], fields=("text", "url"))
    return {"sources": [Source(reader=reader, name="web", language="en")], "steps": STEPS, "shards": 3, **changes}


def lines_of(path) -> list[str]:
    return [line for line in gzip.decompress(path.read_bytes()).decode().splitlines() if line != "{broken"]


def lines(folder) -> list[dict]:
    found = []
    for path in sorted(folder.glob("part-*.jsonl.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
            text = reader.read().decode()
        found.append([json.loads(line) for line in text.splitlines()])
    return found


def test_what_is_kept_is_written_once_and_what_is_not_is_counted_with_its_reason(raw, tmp_path):
    manifest = curate(output_dir=str(tmp_path / "out"), **recipe(raw))
    counts = manifest["counts"]
    assert counts["read"] == 60 and counts["reading: bad_json"] == 3
    assert counts["C4: too few sentences"] == 4
    assert counts["ExactDuplicates: duplicate words"] == 8 and counts["MinHash: near duplicate"] == 8
    texts = [row["text"] for shard in lines(tmp_path / "out") for row in shard]
    assert len(texts) == len(set(texts)) == manifest["kept"] == manifest["written"] == 40
    assert [shard["documents"] for shard in manifest["shards"]] == [14, 13, 13]
    assert manifest["examples"]["C4: too few sentences"][0] == "short."
    assert not (tmp_path / "out" / "work").exists()
    assert {row["language"] for shard in lines(tmp_path / "out") for row in shard} == {"en"}


def test_the_same_shards_with_two_workers_and_after_a_kill(raw, tmp_path, monkeypatch):
    curate(output_dir=str(tmp_path / "one"), **recipe(raw))
    curate(output_dir=str(tmp_path / "two"), **recipe(raw, workers=2))
    done, real = [], run.run_stage

    def dies(job):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(job)
        return real(job)

    monkeypatch.setattr(run, "run_stage", dies)
    with pytest.raises(KeyboardInterrupt):
        curate(output_dir=str(tmp_path / "killed"), **recipe(raw))
    again = []
    monkeypatch.setattr(run, "run_stage", lambda job: again.append(job.report.exists()) or real(job))
    curate(output_dir=str(tmp_path / "killed"), **recipe(raw))
    assert again.count(True) == 4  # it went on, and did not begin anew
    one = [shard["sha256"] for shard in json.loads((tmp_path / "one" / "manifest.json").read_text())["shards"]]
    for name in ("two", "killed"):
        assert [s["sha256"] for s in json.loads((tmp_path / name / "manifest.json").read_text())["shards"]] == one


def test_sources_are_mixed_by_weights_and_their_epochs_told(raw, tmp_path):
    def source(name, number):
        return Source(reader=JsonLines([f"{raw}/{number}.jsonl.gz"]), name=name, language="en")

    settings = {"weights": {"a": 9.0, "b": 1.0}, "characters": 50_000}
    manifest = curate(
        output_dir=str(tmp_path), **recipe(raw, sources=[source("a", 0), source("b", 1)], steps=(), **settings)
    )
    written = [row for shard in lines(tmp_path) for row in shard]
    share = {name: sum(len(row["text"]) for row in written if row["source"] == name) for name in "ab"}
    assert abs(share["a"] - 45_000) < 1000 and abs(share["b"] - 5000) < 1000
    told = manifest["sources"]["a"]
    np.testing.assert_allclose(told["epochs"], 45_000 / told["characters"])
    times = collections.Counter(row["text"] for row in written if row["source"] == "a")
    originals = collections.Counter(json.loads(line)["text"] for line in lines_of(raw / "0.jsonl.gz"))
    assert told["epochs"] > 2 and len(times) == len(originals)
    assert all(
        count // originals[text] in (int(told["epochs"]), int(told["epochs"]) + 1) for text, count in times.items()
    )


def test_a_damaged_file_ends_there_and_the_report_says_so(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    whole = (raw / "1.jsonl.gz").read_bytes()
    (tmp_path / "raw" / "1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "raw" / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    manifest = curate(output_dir=str(tmp_path / "out"), **recipe(tmp_path / "raw"))
    damaged = [name for name in manifest["counts"] if name.startswith("unreadable: 1.jsonl.gz")]
    assert len(damaged) == 1 and 40 <= manifest["counts"]["read"] < 60


def test_what_cannot_be_is_refused_before_anything_is_written(raw, tmp_path):
    for changes, message in (
        ({"shards": 0}, "must be at least 1"),
        ({"weights": {"web": 1.0}}, "belong together"),
        ({"weights": {"x": 1.0}, "characters": 5}, "one each, none negative"),
        ({"sources": []}, "name at least one Source"),
    ):
        with pytest.raises(ValueError, match=message):
            curate(output_dir=str(tmp_path / "out"), **recipe(raw, **changes))
    assert not (tmp_path / "out").exists()
    curate(output_dir=str(tmp_path / "out"), **recipe(raw))
    with pytest.raises(FileExistsError, match="holds a finished corpus"):
        curate(output_dir=str(tmp_path / "out"), **recipe(raw))


def test_from_the_command_line_a_recipe_file_and_a_folder(tmp_path):
    (tmp_path / "texts").mkdir()
    for seed in range(6):
        (tmp_path / "texts" / f"{seed}.txt").write_text(f"This is a small story about {page(seed % 5)}")
    out = tmp_path / "out"
    told = succeed(
        "curate", "--gin_file=corpora/text.gin", f"TextFiles.paths=['{tmp_path}/texts/*.txt']", f"output_dir={out}",
        "shards=2", "Language.at_least=0.0",
    )  # fmt: skip
    assert "5 documents in 2 shards" in told.out and "duplicate words" in told.err
    again = t5x_like("curate", "--gin_file=corpora/text.gin", "TextFiles.paths=['none']", f"output_dir={out}2")
    assert again.code == 2 and "no file matches none" in again.err


def test_a_folder_that_cannot_be_written_is_named_at_once(raw, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"cannot write to .*file/out"):
        curate(output_dir=str(tmp_path / "file" / "out"), **recipe(raw))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(raw, tmp_path):
    """No file may grow beyond 5 kB; afterwards the finished corpus is that of a run that was never stopped."""
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large"):
            curate(output_dir=str(out), **recipe(raw))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(out.glob("part-*"))
    manifest = curate(output_dir=str(out), **recipe(raw))
    whole = curate(output_dir=str(tmp_path / "whole"), **recipe(raw))
    assert [shard["sha256"] for shard in manifest["shards"]] == [shard["sha256"] for shard in whole["shards"]]


def test_a_sample_forecasts_what_the_whole_will_leave(tmp_path):
    """1,600 pages, a sixth of them copies and a sixth near copies: two in three stay; a sample of a fifth says so."""
    pages = [page(seed, 6) for seed in range(1066)]
    pages += pages[:267] + [text.replace("a", "x", 1) for text in pages[267:534]]
    random.Random(1).shuffle(pages)
    (tmp_path / "pages.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in pages))
    made = {
        "sources": [Source(reader=JsonLines([f"{tmp_path}/pages.jsonl"]), name="web", language="en")],
        "steps": (ExactDuplicates(), MinHash()),
        "shards": 1,
        "output_dir": str(tmp_path / "out"),
    }
    whole, part = curate(**made), curate(**made, sample=0.2)
    assert (tmp_path / "out-sample" / "report.html").exists() and 1066 <= whole["kept"] <= 1070
    # A cluster is drawn with 0.2: the standard error of their number is 6 % of it. Documents that are drawn one by one
    # would leave 1,600 times 0.93.
    assert abs(part["forecast"]["documents"] / whole["kept"] - 1) < 0.18 and part["forecast"]["documents"] < 1300
    assert part["counts"]["read"] == pytest.approx(320, abs=80)
    assert part["forecast"]["CPU seconds"] > sum(
        json.loads((tmp_path / "out-sample" / "tally.json").read_text())["seconds"].values()
    )
    with pytest.raises(ValueError, match="sample 0 must be above 0"):
        curate(**made, sample=0)


def test_a_new_dump_against_the_index_of_an_earlier_one_by_the_command_line(tmp_path):
    """Two dumps one after the other keep what one run over both keeps; another ngram is refused in one sentence."""
    for number, seeds in enumerate(([0, 1, 2, 3], [2, 3, 4, 5, 4])):
        texts = [page(seed).replace("a", "x", 1 + number) for seed in seeds]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(
        "curate.sources = [@Source()]\nSource.name = 'web'\nSource.reader = @JsonLines()\ncurate.steps = [@MinHash()]\n"
        "MinHash.keep = 'source'\ncurate.shards = 1\n"
    )
    index = tmp_path / "indices" / "0.arrow"

    def run_on(paths, out, *settings):
        return t5x_like(
            "curate", f"--gin_file={recipe}", f"JsonLines.paths={paths}", f"output_dir={tmp_path / out}", *settings
        )

    dumps = [str(tmp_path / f"{number}.jsonl") for number in range(2)]
    assert run_on(dumps, "both").code == run_on(dumps[:1], "one", f"MinHash.index='{index}'").code == 0
    told = run_on(dumps[1:], "two", f"MinHash.earlier=['{index}']", f"MinHash.index='{tmp_path / '1.arrow'}'")
    assert told.code == 0 and len(pa.ipc.open_file(str(tmp_path / "1.arrow")).read_all()) == 6
    kept = {out: {row["text"] for part in lines(tmp_path / out) for row in part} for out in ("both", "one", "two")}
    assert len(kept["one"]) == 4 and len(kept["two"]) == 2 and kept["one"] | kept["two"] == kept["both"]
    refused = run_on(dumps[1:], "three", f"MinHash.earlier=['{index}']", "MinHash.ngram=13")
    assert refused.code == 2 and "made with ngram 5, this step has ngram 13" in refused.err
    assert not (tmp_path / "three").exists() and "Traceback" not in refused.err
