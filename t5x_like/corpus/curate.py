"""From raw files to clean shards: the arguments of `curate` are the schema of a recipe."""

import hashlib
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from t5x_like.corpus import forecast, learning, mapped, report, run
from t5x_like.corpus.documents import SCHEMA, TEXT_COLUMNS
from t5x_like.corpus.sources import Source
from t5x_like.tasks.files import fingerprint
from t5x_like.train import disk

_DOCUMENTS_KEPT = 1 << 6  # documents after which what was read of them need not stay
VERSIONS = ("pyarrow", "ftfy", "py3langid", "fastwarc", "resiliparse", "xxhash", "numpy")


def curate(
    *,
    output_dir: str,
    sources: Sequence[Source],
    steps: Sequence[Any],
    shards: int = 16,
    workers: int = 1,
    engine: Callable[[int], Any] = run.processes,
    seed: int = 0,
    weights: dict[str, float] | None = None,
    characters: int | None = None,
    sample: float = 1.0,
    recipe: str = "",
    progress: Callable[[int, int, int, int], None] = lambda *_: None,
) -> dict:
    """Writes output_dir/part-*.jsonl.zst, shuffled, and manifest.json, which it returns. The same call resumes.

    Beside them: models/ (what steps learnt), tally.json (what happened, by step, source, language and score) and
    report.html, which shows it.

    engine       who runs the parts, `workers` at a time: processes of this machine, or @ray_tasks
    weights      {source: share of the characters}, with `characters` in all: a source that is too small is repeated
                 (the manifest tells its epochs), one that is too large gives a random part. None: everything once
    sample       the part of the documents to try the recipe on, into OUTPUT_DIR-sample, with as small a part of
                 `characters`; the manifest's "forecast" is of all documents
    """
    check(sources, steps, shards, workers, weights, characters)
    sources = forecast.sampled(sources, sample)
    folder = pathlib.Path(output_dir if sample == 1 else f"{output_dir}-sample").absolute()
    work = folder / "work"
    identity = identity_of(sources, steps)
    claim(folder, work, identity)
    fitted, learned = learning.fit_all(steps, folder / "models")
    told, files, inputs = run.run_all(sources, fitted, work, workers=workers, engine=engine, progress=progress)
    index = index_of(files)
    budget = None if characters is None else int(characters * sample)
    chosen, mix = mixed(index, [source.name for source, _ in inputs], weights, budget, seed)
    written = write_shards(folder, files, chosen, shards)
    manifest = {
        "identity": identity,
        "recipe": recipe,
        "seed": seed,
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "counts": dict(sorted(told.counts.items())),
        "kept": len(index["file"]),
        "written": len(chosen),
        "sources": mix,
        "examples": dict(sorted(told.examples.items())),
        "models": learned,
        "sample": sample,
        "forecast": forecast.of_whole(told, sample, sum(path.stat().st_size for path in work.glob("*.keys.arrow"))),
        "shards": written,
    }
    run.write_text(folder / "tally.json", json.dumps(told.as_json(), ensure_ascii=False))
    run.write_text(folder / "report.html", report.page_of(manifest, told, folder.name))
    run.write_text(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
    shutil.rmtree(work)
    return manifest


def check(sources, steps, shards, workers, weights, characters) -> None:
    if not sources:
        raise ValueError("curate.sources is empty: name at least one Source")
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"sources {twice} have one name: give each its own")
    learning.check_names(steps)
    if shards < 1 or workers < 1:
        raise ValueError(f"shards {shards} and workers {workers} must be at least 1")
    if (weights is None) != (characters is None):
        raise ValueError("weights and characters belong together: shares of sources, and of how many characters")
    if weights is not None and (set(weights) != set(names) or min(weights.values()) < 0 or not sum(weights.values())):
        raise ValueError(f"weights are of {sorted(weights)}, the sources are {sorted(names)}: one each, none negative")


def identity_of(sources: Sequence[Source], steps: Sequence[Any]) -> str:
    """Of the input's state and of what is done with it."""
    digest = hashlib.sha256()
    for named in [*sources, *learning.readers_of(steps)]:
        files = named.reader.files()
        digest.update(f"{named}\0{fingerprint(files, files[0].parent)}\0".encode())
    digest.update(repr(list(steps)).encode())
    return digest.hexdigest()


def claim(folder: pathlib.Path, work: pathlib.Path, identity: str) -> None:
    """Makes the folders, or finds them as a run of the same recipe left them."""
    mark = work / "identity"
    if (folder / "manifest.json").exists():
        raise FileExistsError(f"{folder} holds a finished corpus: name another output_dir, or delete it")
    if mark.exists() and mark.read_text(encoding="utf-8") != identity:
        raise ValueError(
            f"{folder} was begun with another recipe or other input: name another output_dir, or delete it"
        )
    if not mark.exists():
        disk.probe_writable(folder)
        work.mkdir(exist_ok=True)
        run.write_text(mark, identity)


def index_of(files: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
    """Where every survivor stands: number of its file, batch in it, row in that; and how many characters it has."""
    found = [np.zeros((4, 0), np.int64)]
    for number, path in enumerate(files):
        reader = mapped.open_mapped(path)
        for i in range(reader.num_record_batches):
            texts = reader.get_batch(i).column(2)
            count = len(texts)
            length = pa.compute.utf8_length(texts).to_numpy(zero_copy_only=False)
            found.append(np.stack([np.full(count, number), np.full(count, i), np.arange(count), length]))
            mapped.let_go()
    return dict(zip(("file", "batch", "place", "length"), np.concatenate(found, axis=1).astype(np.int64), strict=True))


def mixed(
    index: dict[str, np.ndarray], names: Sequence[str], weights, characters, seed: int
) -> tuple[np.ndarray, dict]:
    """(places of the documents to write, in random order, [n, 3]; what each source gives)."""
    rng = np.random.default_rng(seed)
    source_of_file = np.array(names)
    chosen, report = [np.zeros(0, np.int64)], {}
    for name in dict.fromkeys(names):
        own = np.flatnonzero(source_of_file[index["file"]] == name)
        have = int(index["length"][own].sum())
        want = have if weights is None else int(characters * weights[name] / sum(weights.values()))
        report[name] = {"documents": len(own), "characters": have, "wanted": want, "epochs": want / have if have else 0}
        if not have:
            if want:
                raise ValueError(f"source {name} has weight, but no document of it is left after all steps")
            continue
        order = rng.permutation(own)
        taken = np.tile(order, want // have)
        rest = np.cumsum(index["length"][order]) <= want % have
        chosen.append(np.concatenate([taken, order[rest]]))
    everything = np.concatenate(chosen)
    picked = everything[rng.permutation(len(everything))]
    return np.stack([index[name][picked] for name in ("file", "batch", "place")], axis=1), report


def write_shards(folder: pathlib.Path, files, chosen: np.ndarray, shards: int) -> list[dict]:
    """Every shard whole or not at all; document i goes to shard i modulo their number."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    readers = [mapped.open_mapped(path) for path in files]
    batches = [[reader.get_batch(i) for i in range(reader.num_record_batches)] for reader in readers]
    written = []
    for number in range(shards):
        path = folder / f"part-{number:05d}-of-{shards:05d}.jsonl.zst"
        temporary, digest, documents, size = path.with_suffix(".tmp"), hashlib.sha256(), 0, 0
        with temporary.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as out:
            for file_number, batch, place in chosen[number::shards].tolist():
                line = encode(told_of(batches[file_number][batch], place)).encode("utf-8", "replace") + b"\n"
                digest.update(line)
                out.write(line)
                documents, size = documents + 1, size + len(line)
                if not documents % _DOCUMENTS_KEPT:
                    mapped.let_go()
        temporary.replace(path)
        written.append({"name": path.name, "documents": documents, "bytes": size, "sha256": digest.hexdigest()})
    return written


def told_of(batch: pa.RecordBatch, place: int) -> dict:
    """What a shard says of a document: all that is known of it."""
    told = {name: batch.column(column)[place].as_py() for name, column in _COLUMNS.items()}
    told["scores"] = dict(told["scores"] or ())
    return {name: value for name, value in told.items() if value}


_COLUMNS = {name: SCHEMA.get_field_index(name) for name in (*TEXT_COLUMNS, "scores")}


def counts_by_step(counts: Counter | dict) -> list[tuple[str, int]]:
    """For a person: (what, how many), reading first, then reasons in the order of their number."""
    return sorted(counts.items(), key=lambda item: (not item[0].startswith("read"), -item[1]))
