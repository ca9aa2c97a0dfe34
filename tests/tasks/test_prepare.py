import collections
import functools
import gzip
import json
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from t5x_like.data import prepared, ragged
from t5x_like.vocabularies.train import train_sentencepiece

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

from t5x_like.objectives.causal_lm import CausalLM  # noqa: E402
from t5x_like.objectives.span_corruption import SpanCorruption  # noqa: E402
from t5x_like.tasks import held_out, readers, sources  # noqa: E402
from t5x_like.tasks.prepare import prepare  # noqa: E402

REPOSITORY = pathlib.Path(__file__).parents[2]
VOCABULARY = seqio.ByteVocabulary(100)
NUM_SHARDS = 24


def corpus(folder, num_files=6, documents_per_file=20):
    folder.mkdir(exist_ok=True)
    for k in range(num_files):
        rows = [{"text": f"document {j} of file {k}. " * (1 + 7 * j % 11)} for j in range(documents_per_file)]
        (folder / f"{k}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return readers.JsonLines([f"{folder}/*.jsonl"])


def add_task(name, reader, *, hold_out=None, vocabulary=VOCABULARY, objective=None, steps=None):
    feature = seqio.Feature(vocabulary)
    return seqio.TaskRegistry.add(
        name,
        source=reader if isinstance(reader, seqio.DataSource) else sources.Corpus(reader, hold_out=hold_out),
        preprocessors=steps
        or [
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            objective or SpanCorruption(),
        ],
        output_features={"inputs": feature, "targets": feature},
    )


@pytest.fixture(autouse=True)
def registry():
    """Each test registers its own tasks."""
    before = set(seqio.TaskRegistry.names()) | set(seqio.MixtureRegistry.names())
    yield
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in set(registry.names()) - before:
            registry.remove(name)


def documents(folder, split="train"):
    """Every document of a prepared split as text, its records joined."""
    task = prepared.open_task(folder)
    part = task.split(split)
    records = part.read(np.arange(len(part)))
    texts, ids = [], []
    for row, ends in zip(ragged.to_list(records.features["targets"]), records.ends, strict=True):
        ids += row.tolist()
        if ends:
            texts.append(task.vocabulary.decode(ids))
            ids = []
    assert not ids
    return texts


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.array_record"))}


def read_all(reader):
    return [item["text"] for path in reader.files() for item in reader.documents(path, readers.Counts())]


def test_prepared_documents_are_those_of_the_source_cut_into_records(tmp_path):
    reader = corpus(tmp_path / "corpus")
    add_task("whole", reader, objective=CausalLM())
    (folder,) = prepare("whole", output_dir=tmp_path, num_shards=2, max_tokens_per_record=50)
    assert sorted(documents(folder)) == sorted(read_all(reader))
    manifest = json.loads((folder / "task.json").read_text())
    counts = manifest["splits"]["train"]
    assert manifest["features"] == {"targets": {"dtype": "uint16", "add_eos": True}}
    assert manifest["objective"] == {"name": "CausalLM", "fields": {"documents": "isolated"}}
    num_characters = sum(map(len, read_all(reader)))
    assert counts["documents"] == 120 < counts["examples"]
    assert counts["tokens"] == {"targets": num_characters} and counts["bytes"] == counts["characters"] == num_characters


@pytest.mark.parametrize("rule", [held_out.ByFile(0.3), held_out.ByDocument(0.3), held_out.Tail(0.3)])
@pytest.mark.parametrize("num_shards", [1, 4, 9])
def test_splits_and_shards_lose_nothing_and_repeat_nothing(tmp_path, rule, num_shards):
    source = sources.Corpus(corpus(tmp_path / "corpus"), hold_out=rule)
    parts = {}
    for split in source.splits:
        shards = [seqio.ShardInfo(index, num_shards) for index in range(num_shards)]
        parts[split] = [d["text"] for shard in shards for d in source.documents(split, shard, readers.Counts())]
    whole = read_all(corpus(tmp_path / "corpus"))
    if isinstance(rule, held_out.Tail):
        assert sum(map(len, parts["train"] + parts["validation"])) == sum(map(len, whole))
    else:
        assert sorted(parts["train"] + parts["validation"]) == sorted(whole)
        assert not set(parts["train"]) & set(parts["validation"])
    assert min(map(len, parts.values())) > 0


def test_bad_documents_are_counted_once_however_many_shards_and_splits(tmp_path):
    (tmp_path / "corpus").mkdir()
    lines = [b'{"text": "good %d"}' % k for k in range(30)] + [b"bad json", b'{"text": "\xff"}', b'{"text": ""}']
    (tmp_path / "corpus" / "a.jsonl").write_bytes(b"\n".join(lines))
    add_task("bad", readers.JsonLines([f"{tmp_path}/corpus/a.jsonl"]), hold_out=held_out.ByDocument(0.3))
    (folder,) = prepare("bad", output_dir=tmp_path, num_shards=3)
    splits = json.loads((folder / "task.json").read_text())["splits"]
    dropped = sum((collections.Counter(split["dropped"]) for split in splits.values()), collections.Counter())
    assert dropped == {"bad_json": 1, "empty": 1, "invalid_utf8": 1}
    assert sum(split["documents"] for split in splits.values()) == 31


TASK_FILE = """
import functools
import seqio
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.tasks import readers, sources

feature = seqio.Feature(seqio.ByteVocabulary(100))
seqio.TaskRegistry.add(
    "from_file",
    source=sources.Corpus(readers.JsonLines(["{corpus}/*.jsonl"])),
    preprocessors=[
        functools.partial(seqio.preprocessors.rekey, key_map={{"targets": "text"}}),
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        SpanCorruption(),
    ],
    output_features={{"inputs": feature, "targets": feature}},
)
"""


def task_file(tmp_path):
    corpus(tmp_path / "corpus", num_files=NUM_SHARDS)
    path = tmp_path / "my_tasks.py"
    path.write_text(TASK_FILE.format(corpus=tmp_path / "corpus"))
    return path


def test_two_workers_a_kill_and_a_resumption_write_the_bytes_of_one(tmp_path):
    file, settings = task_file(tmp_path), {"num_shards": NUM_SHARDS}
    (whole,) = prepare("from_file", output_dir=tmp_path / "whole", modules=[file], **settings)
    incomplete, output_dir = tmp_path / "killed" / "from_file.incomplete", tmp_path / "killed"

    def kill_a_worker():
        while len(list(incomplete.glob("*.array_record.json"))) < 3:
            time.sleep(0.005)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    with pytest.raises(ValueError, match=r"was killed.*finished shards are kept, run the same command again"):
        prepare("from_file", output_dir=output_dir, modules=[file], workers=2, **settings)
    killer.join()
    kept = {path.name: path.stat().st_mtime_ns for path in incomplete.glob("*.array_record.json")}
    assert 3 <= len(kept) < NUM_SHARDS and not (output_dir / "from_file").exists()

    (resumed,) = prepare("from_file", output_dir=output_dir, modules=[file], **settings)
    assert shard_bytes(resumed) == shard_bytes(whole) and len(shard_bytes(whole)) == NUM_SHARDS
    assert {name: (resumed / name).stat().st_mtime_ns for name in kept} == kept  # it went on, it did not begin again


def test_a_run_killed_before_its_last_rename_is_completed(tmp_path):
    """What `kill -9` leaves: every shard, half of one more under a temporary name, and no task.json."""
    reader = corpus(tmp_path / "corpus")
    add_task("late", reader)
    (folder,) = prepare("late", output_dir=tmp_path, num_shards=3)
    before, manifest = shard_bytes(folder), json.loads((folder / "task.json").read_text())
    incomplete = folder.rename(tmp_path / "late.incomplete")
    (incomplete / "task.json").unlink()
    (incomplete / "plan.json").write_text(json.dumps({"records": manifest["source"]["records"]}))
    (incomplete / "train-00001-of-00003.array_record.json").unlink()
    (incomplete / "train-00002-of-00003.array_record.tmp").write_text("half")
    prepare("late", output_dir=tmp_path, num_shards=3)
    assert shard_bytes(folder) == before and json.loads((folder / "task.json").read_text()) == manifest
    assert not list(folder.glob("*.tmp"))


def test_an_interrupted_run_over_other_files_is_not_continued(tmp_path, capsys):
    reader = corpus(tmp_path / "corpus")
    add_task("changed", reader)
    incomplete = tmp_path / "changed.incomplete"
    incomplete.mkdir()
    (incomplete / "plan.json").write_text('{"records": "of other files"}')
    (incomplete / "train-00000-of-00001.array_record").write_text("stale")
    (folder,) = prepare("changed", output_dir=tmp_path, num_shards=1)
    assert sorted(documents(folder)) == sorted(read_all(reader))
    assert "have changed since the interrupted run" in capsys.readouterr().err


def test_a_finished_task_is_used_again_and_a_different_one_is_not_replaced_unasked(tmp_path, capsys):
    reader = corpus(tmp_path / "corpus")
    add_task("again", reader)
    (folder,) = prepare("again", output_dir=tmp_path)
    before = (folder / "task.json").stat().st_mtime_ns
    prepare("again", output_dir=tmp_path)
    assert (folder / "task.json").stat().st_mtime_ns == before and "is already in" in capsys.readouterr().err
    with (tmp_path / "corpus" / "0.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(ValueError, match="--overwrite"):
        prepare("again", output_dir=tmp_path)
    prepare("again", output_dir=tmp_path, overwrite=True)
    assert "one more" in documents(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "corpus"]


def test_a_mixture_shares_the_shards_of_tasks_over_the_same_documents(tmp_path):
    reader = corpus(tmp_path / "corpus")
    add_task("spans", reader)
    add_task("causal", reader, objective=CausalLM())
    seqio.MixtureRegistry.add("both", [("spans", 3.0), ("causal", functools.partial(seqio.mixing_rate_num_examples))])
    spans, causal = (tmp_path / name for name in ("spans", "causal"))
    assert set(prepare("both", output_dir=tmp_path)) == {spans, causal}
    assert shard_bytes(spans) == shard_bytes(causal)
    rates = {task.name: rate for task, rate in prepared.open_mixture(tmp_path, "both")}
    assert rates == {"spans": 3.0, "causal": 120.0}
    assert prepared.open_task(spans).manifest["objective"]["name"] == "SpanCorruption"


def test_supervised_pairs_keep_both_sides(tmp_path):
    rows = [{"inputs": f"question {k}", "targets": f"answer {k}"} for k in range(10)] + [{"inputs": "x", "targets": ""}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder(), seqio.preprocessors.append_eos_after_trim]
    add_task("pairs", readers.JsonLines([f"{tmp_path}/a.jsonl"], fields=("inputs", "targets")), steps=steps)
    (folder,) = prepare("pairs", output_dir=tmp_path)
    task = prepared.open_task(folder)
    assert task.manifest["objective"] == {
        "name": "Supervised",
        "fields": {"append_eos": True, "loss_on": "targets", "cut": "head"},
    }
    assert documents(folder) == [f"answer {k}" for k in range(10)]
    assert task.manifest["splits"]["train"]["dropped"] == {"empty": 1}


def test_a_prepared_task_opens_where_tensorflow_cannot_be_imported(tmp_path):
    add_task("alone", corpus(tmp_path / "corpus"))
    (folder,) = prepare("alone", output_dir=tmp_path)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'seqio'])); import numpy as np\n"
        f"from t5x_like.data import prepared; task = prepared.open_task({str(folder)!r})\n"
        "part = task.split('train')\n"
        "print(len(part.read(np.arange(len(part))).ends), task.vocabulary.size)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["120", "359"]


def test_a_full_disk_is_one_sentence_and_the_finished_shards_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    for k, size in enumerate([1000, 400_000]):  # the second shard passes the limit
        (tmp_path / f"{k}.txt").write_text("".join(map(chr, rng.integers(33, 126, size))))
    add_task("full", readers.TextFiles([f"{tmp_path}/*.txt"]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        with pytest.raises(OSError, match=r"the disk is full .*1 of 2 shards are kept; make room and run the same"):
            prepare("full", output_dir=tmp_path, num_shards=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("full.incomplete/*.tmp"))
    (folder,) = prepare("full", output_dir=tmp_path, num_shards=2)
    assert sum(map(len, documents(folder))) == 401_000


def test_what_cannot_be_prepared_is_one_sentence_and_leaves_nothing(tmp_path):
    reader = corpus(tmp_path / "corpus")
    add_task("known_task", reader)
    with pytest.raises(ValueError, match="no task or mixture 'knwn_task': did you mean known_task"):
        prepare("knwn_task", output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"no split 'test': it has \['train'\]"):
        prepare("known_task", output_dir=tmp_path, splits=["test"])
    with pytest.raises(ValueError, match="use letters, digits"):
        prepare("../known_task", output_dir=tmp_path)
    (tmp_path / "empty.txt").write_text("")
    add_task("empty", readers.TextFiles([f"{tmp_path}/empty.txt"]))
    with pytest.raises(ValueError, match=r"task empty has no documents at all \(dropped: .*'empty': 1"):
        prepare("empty", output_dir=tmp_path)
    add_task("missing", readers.TextFiles([f"{tmp_path}/emty.txt"]))
    with pytest.raises(FileNotFoundError, match=r"there is empty\.txt"):
        prepare("missing", output_dir=tmp_path)
    data = gzip.compress(b"".join(b'{"text": "%d"}\n' % k for k in range(9999)))
    (tmp_path / "cut.jsonl.gz").write_bytes(data[: len(data) // 2])
    add_task("cut", readers.JsonLines([f"{tmp_path}/cut.jsonl.gz"]))
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz is truncated or damaged"):
        prepare("cut", output_dir=tmp_path)
    assert not [path for path in tmp_path.iterdir() if (path / "task.json").exists()]


def test_a_mark_of_hidden_text_inside_a_document_drops_it(tmp_path):
    (tmp_path / "a.txt").write_text("plain text\nwith <extra_id_3> inside\n")
    reader = readers.TextFiles([f"{tmp_path}/a.txt"], per="line")
    model = train_sentencepiece(read_all(reader), output=tmp_path / "a.model", kind="bpe", vocab_size=290)
    add_task("marked", reader, vocabulary=seqio.SentencePieceVocabulary(str(model), 100))
    (folder,) = prepare("marked", output_dir=tmp_path)
    assert documents(folder) == ["plain text"]
    assert prepared.open_task(folder).manifest["splits"]["train"]["dropped"] == {"sentinel_in_text": 1}
