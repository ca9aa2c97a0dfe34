"""`prepare`: a SeqIO task or mixture to a prepared dataset, once, before training.

  DIR/<task>.incomplete/     while it is being made: finished shards with their counts, plan.json, lock
  DIR/<task>/                renamed when complete; task.json is the last file written
  DIR/<mixture>.mixture.json its tasks and rates

Every shard depends on the task and on its own number alone, so any number of workers, interrupted and started again at
any moment, writes the same bytes.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import pathlib
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import seqio

from t5x_like.data import prepared
from t5x_like.objectives.supervised import Supervised
from t5x_like.tasks import registry, shards, vocabularies
from t5x_like.tasks import workers as worker_processes
from t5x_like.tasks.cache_point import Cut, cut, describe_step
from t5x_like.tasks.progress import progress, say
from t5x_like.tasks.shards import ShardJob
from t5x_like.tasks.sources import Corpus
from t5x_like.vocabularies.special_tokens import SpecialTokens

_SHARD_BYTES = 8 * 2**20  # of source text; small enough that two workers share a corpus of a few megabytes
_MAX_SHARDS = 256
_SHARDS_OF_ONE_FILE = 8  # each reads the whole file and keeps its documents, so more would mostly read
_BYTES_PER_TEXT_BYTE = 0.75  # of disk; ids of two bytes and about three bytes of text each, and some room


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made, and the fingerprints by which it is known again."""

    cut: Cut
    folder: pathlib.Path
    jobs: list[ShardJob]
    vocabulary: dict
    tokenizer_file: pathlib.Path | None
    source: dict

    @property
    def name(self) -> str:
        return self.cut.offline.name

    @property
    def incomplete(self) -> pathlib.Path:
        return self.folder.with_name(self.folder.name + ".incomplete")


def prepare(
    name: str,
    *,
    output_dir: str | os.PathLike,
    splits: Sequence[str] | None = None,
    num_shards: int | None = None,
    workers: int = 1,
    max_tokens_per_record: int = 65536,
    modules: Sequence[str] = (),
    overwrite: bool = False,
) -> list[pathlib.Path]:
    """The folders of the prepared tasks. `modules` register the tasks, here and in every worker."""
    if workers < 1 or (num_shards is not None and num_shards < 1) or max_tokens_per_record < 2:
        raise ValueError(
            f"workers {workers}, num_shards {num_shards}, max_tokens_per_record {max_tokens_per_record} must be > 0"
        )
    registry.import_modules(modules)
    provider = registry.find(prepared.check_name(name))
    output_dir = pathlib.Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    tasks = provider.tasks if isinstance(provider, seqio.Mixture) else [provider]
    folders = []
    for task in tasks:
        plan = _plan(task, output_dir, splits, num_shards, max_tokens_per_record)
        for note in plan.cut.notes:
            say(f"{task.name} {note}")
        folders.append(_prepare_task(plan, workers, modules, overwrite))
    if isinstance(provider, seqio.Mixture):
        _write_mixture(provider, output_dir)
    return folders


def _plan(
    task: seqio.Task,
    output_dir: pathlib.Path,
    splits: Sequence[str] | None,
    num_shards: int | None,
    max_tokens_per_record: int,
) -> Plan:
    where = cut(task)
    vocabulary = vocabularies.the_one_vocabulary(task.name, task.output_features)
    spec, tokenizer_file = vocabularies.vocabulary_spec(vocabulary)
    special = SpecialTokens.from_json(spec["special_tokens"]).check(spec["size"])
    folder = output_dir / prepared.check_name(task.name)
    id_type = "uint16" if spec["size"] <= 2**16 else "int32"
    dtypes = {name: id_type if name in shards.ID_FEATURES else "int32" for name in where.objective.reads}
    jobs = []
    for split in _existing(task, splits):
        count = num_shards or _default_num_shards(task.source, split)
        jobs += [
            ShardJob(
                split=prepared.check_name(split),
                index=index,
                num_shards=count,
                folder=f"{folder}.incomplete",
                dtypes=dtypes,
                max_tokens_per_record=max_tokens_per_record,
                vocab_size=spec["size"],
                special=special,
            )
            for index in range(count)
        ]
    return Plan(where, folder, jobs, spec, tokenizer_file, _fingerprints(where, jobs, spec))


def _existing(task: seqio.Task, splits: Sequence[str] | None) -> list[str]:
    if unknown := sorted(set(splits or ()) - set(task.splits)):
        raise ValueError(f"task {task.name} has no split {', '.join(map(repr, unknown))}: it has {list(task.splits)}")
    return list(splits or task.splits)


def _default_num_shards(source: seqio.DataSource, split: str) -> int:
    """About 8 MiB of text each; a source that is not ours is not measured."""
    num_files = len(source.list_shards(split))
    if not isinstance(source, Corpus):
        return min(num_files, _SHARDS_OF_ONE_FILE) or 1
    by_size = math.ceil(source.num_bytes(split) / _SHARD_BYTES)
    return max(1, min(by_size, _MAX_SHARDS, max(num_files, _SHARDS_OF_ONE_FILE)))


def _fingerprints(where: Cut, jobs: list[ShardJob], vocabulary: dict) -> dict:
    """The "source" entry of task.json. Tasks with the same `records` have the same shards, whatever the objectives."""
    task = where.offline
    steps = [describe_step(step) for step in task.preprocessors if not isinstance(step, seqio.CacheDatasetPlaceholder)]
    settings = [[job.split, job.num_shards, job.max_tokens_per_record, job.dtypes] for job in jobs if job.index == 0]
    source = _describe_source(task)
    drops = isinstance(where.objective, Supervised)  # which documents are dropped hangs on it
    records = _digest([prepared.FORMAT, source, steps, settings, vocabulary, drops])
    add_eos = {name: feature.add_eos for name, feature in task.output_features.items()}
    return source | {
        "steps": steps,
        "records": records,
        "fingerprint": _digest([records, task.name, _objective_json(where), add_eos]),
    }


def _describe_source(task: seqio.Task) -> dict:
    if isinstance(task.source, Corpus):
        source = task.source.fingerprint()
        return {**source, "files": source["fingerprint"]}
    names = sorted({name for split in task.splits for name in task.source.list_shards(split)})
    paths = [pathlib.Path(name) for name in names]
    states = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.is_file()]
    description = repr(task.source)
    if isinstance(task.source, seqio.FunctionDataSource):
        description = describe_step(inspect.unwrap(task.source._dataset_fn))  # the only way to see whether it changed
    return {"kind": type(task.source).__name__, "files": _digest([names, states, description])}


def _prepare_task(plan: Plan, num_workers: int, modules: Sequence[str], overwrite: bool) -> pathlib.Path:
    if (plan.folder / "task.json").exists():
        have = json.loads((plan.folder / "task.json").read_text(encoding="utf-8"))
        if have["source"].get("fingerprint") == plan.source["fingerprint"]:
            say(f"{plan.name} is already in {plan.folder}, made from the same files and settings; it is used as it is")
            _record_counts(plan, have)
            return plan.folder
        if not overwrite:
            raise ValueError(
                f"{plan.folder} was prepared from other files or settings than task {plan.name} has now: "
                "give --overwrite to replace it, or another output folder"
            )
    with _locked(plan):
        _open_incomplete(plan)
        _borrow(plan)
        done = {job: stats for job in plan.jobs if (stats := shards.finished(job))}
        if done:
            say(f"{plan.name}: {len(done)} of {len(plan.jobs)} shards are already there")
        todo = [job for job in plan.jobs if job not in done]
        _check_free_space(plan, todo)
        done |= _write_shards(plan, todo, num_workers, modules, len(done))
        return _complete(plan, [done[job] for job in plan.jobs])


def _write_shards(
    plan: Plan, todo: list[ShardJob], num_workers: int, modules: Sequence[str], num_done: int
) -> dict[ShardJob, dict]:
    written = {}
    try:
        with progress(plan.name, done=num_done, total=len(plan.jobs)) as update:
            for job, stats, tokens in worker_processes.run(plan.name, plan.cut, todo, num_workers, modules):
                if job is not None:
                    written[job] = stats
                update(num_done + len(written), tokens)
    except (OSError, RuntimeError) as error:
        if not _is_full(error):
            raise
        raise OSError(
            f"the disk is full ({plan.incomplete}): {num_done + len(written)} of {len(plan.jobs)} shards are kept; "
            "make room and run the same command again to go on"
        ) from error
    return written


def _is_full(error: Exception) -> bool:
    """ArrayRecord's writer says it in words, and only when a shard is closed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return True
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT))


def _check_free_space(plan: Plan, todo: list[ShardJob]) -> None:
    source = plan.cut.offline.source
    if not isinstance(source, Corpus) or not todo:
        return
    text = sum(source.num_bytes(split) for split in {job.split for job in todo})
    needed = int(text * _BYTES_PER_TEXT_BYTE * len(todo) / len(plan.jobs))
    free = shutil.disk_usage(plan.incomplete).free
    if free < needed:
        raise OSError(
            f"{plan.incomplete} has {free / 1e9:.1f} GB free, and task {plan.name} needs about {needed / 1e9:.1f} GB: "
            "make room or choose another output folder"
        )


def _open_incomplete(plan: Plan) -> None:
    """Keeps the shards of an interrupted run with the same fingerprint; throws away those of any other."""
    for torn in plan.incomplete.glob("*.tmp"):
        torn.unlink()
    path = plan.incomplete / "plan.json"
    records = json.loads(path.read_text(encoding="utf-8"))["records"] if path.exists() else None
    if records == plan.source["records"]:
        return
    if records:
        say(f"{plan.name}: files or settings have changed since the interrupted run, so its shards are made again")
    for old in plan.incomplete.iterdir():
        if old.name != "lock":
            old.unlink()
    _write_json(path, {"records": plan.source["records"]})


def _borrow(plan: Plan) -> None:
    """Links the shards of a prepared task that differs only in name and objective."""
    for path in sorted(plan.folder.parent.glob("*/task.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.get("source", {}).get("records") != plan.source["records"] or shards.finished(plan.jobs[0]):
            continue
        if path.parent == plan.folder:  # being overwritten
            continue
        for job in plan.jobs:
            for name in (job.path.name, job.stats_path.name):
                _link(path.parent / name, plan.incomplete / name)
        say(f"{plan.name} has the same documents as {manifest['name']}, whose shards it shares")
        return


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _complete(plan: Plan, stats: list[dict]) -> pathlib.Path:
    """Writes task.json into the finished folder and gives it its name."""
    manifest = _manifest(plan, stats)
    if not any(split["examples"] for split in manifest["splits"].values()):
        dropped = {split: counts["dropped"] for split, counts in manifest["splits"].items()}
        shutil.rmtree(plan.incomplete)
        raise ValueError(f"task {plan.name} has no documents at all (dropped: {dropped}): look at its source and steps")
    if plan.tokenizer_file is not None:
        shutil.copyfile(plan.tokenizer_file, plan.incomplete / plan.tokenizer_file.name)
    (plan.incomplete / "plan.json").unlink()
    _write_json(plan.incomplete / "task.json", manifest)
    _record_counts(plan, manifest)
    if plan.folder.exists():
        old = plan.folder.with_name(f"{plan.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        plan.folder.rename(old)
        plan.incomplete.rename(plan.folder)
        shutil.rmtree(old)
    else:
        plan.incomplete.rename(plan.folder)
    (plan.folder / "lock").unlink()
    for split, counts in manifest["splits"].items():
        tokens = sum(counts["tokens"].values())
        drops = ", ".join(f"{n:,} {reason}" for reason, n in counts["dropped"].items()) or "nothing"
        say(f"{plan.name} {split}: {counts['documents']:,} documents, {tokens:,} tokens; dropped or repaired: {drops}")
    return plan.folder


def _manifest(plan: Plan, stats: list[dict]) -> dict:
    features = plan.cut.offline.output_features
    splits = {}
    for split in dict.fromkeys(job.split for job in plan.jobs):
        rows = [row for row in stats if row["split"] == split]
        splits[split] = {
            "examples": sum(row["shard"]["examples"] for row in rows),
            "documents": sum(row["documents"] for row in rows),
            "tokens": dict(sum((Counter(row["tokens"]) for row in rows), Counter(dict.fromkeys(rows[0]["tokens"], 0)))),
            "characters": sum(row["characters"] for row in rows),
            "bytes": sum(row["bytes"] for row in rows),
            "dropped": dict(sum((Counter(row["dropped"]) for row in rows), Counter())),
            "shards": [row["shard"] for row in rows],
        }
    return {
        "format": prepared.FORMAT,
        "name": plan.name,
        "features": {
            name: {"dtype": dtype, "add_eos": bool(name not in features or features[name].add_eos)}
            for name, dtype in plan.jobs[0].dtypes.items()
        },
        "objective": _objective_json(plan.cut),
        "vocabulary": plan.vocabulary,
        "splits": splits,
        "source": plan.source,
        "versions": {"python": platform.python_version(), "numpy": np.__version__}
        | {name: importlib.metadata.version(name) for name in ("seqio", "tensorflow", "sentencepiece", "tokenizers")},
    }


def _objective_json(where: Cut) -> dict:
    return {"name": type(where.objective).__name__, "fields": attrs.asdict(where.objective)}


def _record_counts(plan: Plan, manifest: dict) -> None:
    if isinstance(plan.cut.offline.source, Corpus):
        plan.cut.offline.source.record_counts({name: s["documents"] for name, s in manifest["splits"].items()})


def _write_mixture(mixture: seqio.Mixture, output_dir: pathlib.Path) -> None:
    rates = {task.name: float(mixture.get_rate(task)) for task in mixture.tasks}
    rates = {name: rate for name, rate in rates.items() if rate > 0}
    if not rates:
        raise ValueError(f"mixture {mixture.name}: every rate is 0")
    _write_json(
        output_dir / f"{prepared.check_name(mixture.name)}.mixture.json", {"name": mixture.name, "tasks": rates}
    )
    say(f"mixture {mixture.name}: " + ", ".join(f"{name} {rate:g}" for name, rate in rates.items()))


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _write_json(path: pathlib.Path, value: dict) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


@contextlib.contextmanager
def _locked(plan: Plan) -> Iterator[None]:
    """The system lets go of the lock when the process ends, however it ends."""
    plan.incomplete.mkdir(exist_ok=True)
    with (plan.incomplete / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is preparing task {plan.name} in {plan.incomplete}: wait for it"
            ) from None
        yield
