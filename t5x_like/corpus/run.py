"""A recipe over files, a stage at a time, with the same survivors whatever engine runs it and however many workers.

A recipe is a list of steps. Most look at one document; a step with `keys`, `choose` and `take_away` (duplicates) looks
at all of them, so it ends a stage: every file is read through the steps before it and written with its keys, then one
process chooses, by number, what goes (documents, or places in them), and the next stage begins by taking that away.

Files of one source, in their order, are put together into parts of PART_BYTES or one file, and batches are cut every
BATCH documents of a part, whatever the workers. What a stage finished of a part lies in two files, renamed to their
names when whole, so that a kill costs one part a worker; the folder belongs to one recipe over one state of the input.
"""

import collections
import concurrent.futures.process
import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from t5x_like.corpus import duplicate_clusters, mapped, tally
from t5x_like.corpus.documents import SCHEMA, batch_of, split_kept
from t5x_like.corpus.sources import Source

BATCH = 512
PART_BYTES = 64 * 2**20
KEY_BYTES = 16 * 2**20


class Stage(NamedTuple):
    """Steps of single documents, and the step that ends the stage, or None for the last one.

    before   the step that ended the stage before, or None for the first one
    first    the place of steps[0] in the recipe, from 1
    """

    before: Any
    steps: tuple[Any, ...]
    last: Any
    first: int

    def name_of(self, place: int) -> str:
        """Of steps[place], of `before` (-1) or of `last` (the number of steps), with its place in the recipe."""
        step = self.before if place < 0 else (*self.steps, self.last)[place]
        return f"{self.first + place} {getattr(step, 'name', '') or ''} {type(step).__name__}".replace("  ", " ")


def stages_of(steps: Sequence[Any]) -> list[Stage]:
    stages, own, before, first = [], [], None, 1
    for place, step in enumerate(steps, 1):
        if hasattr(step, "choose"):
            stages.append(Stage(before, tuple(own), step, first))
            own, before, first = [], step, place + 1
        else:
            own.append(step)
    return [*stages, Stage(before, tuple(own), None, first)]


@dataclasses.dataclass(frozen=True)
class Job:
    """One part in one stage. `source` reads its files in stage 0; later stages read what the stage before wrote."""

    stage: Stage
    number: int
    file: int  # number of the part
    source: Source
    paths: tuple[str, ...]
    folder: str

    def output(self, number: int | None = None) -> pathlib.Path:
        return pathlib.Path(self.folder, f"stage{self.number if number is None else number}-{self.file:06d}.arrow")

    @property
    def report(self) -> pathlib.Path:
        return self.output().with_suffix(".json")

    @property
    def keys(self) -> pathlib.Path:
        return self.output().with_suffix(".keys.arrow")


def run_stage(job: Job) -> dict:
    """The tally of a part in a stage, as JSON; written last, as the sign that the part is finished."""
    if job.report.exists():
        return json.loads(job.report.read_text(encoding="utf-8"))
    told, temporary = tally.Tally(), job.output().with_suffix(".tmp")
    with (
        writing_keys(job, told) as add_keys,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as out,
    ):
        for batch in input_batches(job, told):
            kept = through(batch, job.stage, told)
            if len(kept):
                out.write_batch(kept)
                add_keys(kept)
    temporary.replace(job.output())
    report = told.as_json()
    write_text(job.report, json.dumps(report))
    return report


@contextlib.contextmanager
def writing_keys(job: Job, told: tally.Tally) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """What takes batches and writes their keys, if the stage ends with a step that asks for them; KEY_BYTES at a time,
    so that a file has few places to look."""
    if job.stage.last is None:
        yield lambda batch: None
        return
    held, temporary = [job.stage.last.keys(batch_of([]))], job.keys.with_suffix(".tmp2")

    def write_held() -> None:
        out.write_table(pa.concat_tables(held).combine_chunks())
        held.clear()

    def add(batch: pa.RecordBatch) -> None:
        with told.timed(job.stage.name_of(len(job.stage.steps))):
            held.append(job.stage.last.keys(batch))
            if sum(table.nbytes for table in held) >= KEY_BYTES:
                write_held()

    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, held[0].schema) as out:
        yield add
        if held:
            write_held()
    temporary.replace(job.keys)


def through(batch: pa.RecordBatch, stage: Stage, told: tally.Tally) -> pa.RecordBatch:
    """What the steps of a stage keep of a batch."""
    for place, step in enumerate(stage.steps):
        if not len(batch):
            break
        with told.timed(stage.name_of(place)):
            batch, dropped = split_kept(step(batch))
        told.dropped(type(step).__name__, dropped)
        told.left(stage.name_of(place), batch)
        for score in getattr(step, "measures", ()):
            told.measured(score, batch)
    return batch


def input_batches(job: Job, told: tally.Tally) -> Iterator[pa.RecordBatch]:
    if job.number:
        yield from carried_over(job, told)
        return
    with contextlib.closing(batches_of(job, told)) as batches:
        while True:
            with told.timed(tally.READ):
                batch = next(batches, None)
            if batch is None:
                return
            told.left(tally.READ, batch)
            yield batch


def batches_of(job: Job, told: tally.Tally) -> Iterator[pa.RecordBatch]:
    """All documents of the part that can be read, BATCH at a time."""
    records = []
    for row, item in enumerate(items_of(job, told.counts)):
        if isinstance(item, str):
            told.counts[f"reading: {item}"] += 1
            continue
        told.counts["read"] += 1
        told.counts["read characters"] += len(item["text"])
        records.append({"file": job.file, "row": row, **item})
        if len(records) == BATCH:
            yield batch_of(records)
            records = []
    if records:
        yield batch_of(records)


def items_of(job: Job, counts: collections.Counter) -> Iterator[dict | str]:
    """Of all files of the part; of a damaged one what comes before the damage."""
    for path in map(pathlib.Path, job.paths):
        try:
            yield from job.source.records(path, counts)
        except (ValueError, OSError, EOFError) as error:
            counts[f"unreadable: {path.name}: {str(error).splitlines()[0][:200]}"] += 1


def carried_over(job: Job, told: tally.Tally) -> Iterator[pa.RecordBatch]:
    """What the stage before kept, less what its last step chose."""
    chosen = np.load(chosen_path(job.folder, job.number - 1), mmap_mode="r")
    begin, end = np.searchsorted(chosen["file"], [job.file, job.file + 1])
    chosen, name = chosen[begin:end], job.stage.name_of(-1)
    reader = mapped.open_mapped(job.output(job.number - 1))
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i)
        first, last = batch.column(1)[0].as_py(), batch.column(1)[len(batch) - 1].as_py()
        begin, end = np.searchsorted(chosen["row"], [first, last + 1])
        with told.timed(name):
            kept, dropped = split_kept(job.stage.before.take_away(batch, chosen[begin:end]))
        told.dropped(type(job.stage.before).__name__, dropped)
        told.left(name, kept)
        yield kept
        mapped.let_go()


def chosen_path(folder: str | pathlib.Path, number: int) -> pathlib.Path:
    return pathlib.Path(folder, f"stage{number}-chosen.npy")


def choose(stage: Stage, jobs: Sequence[Job]) -> dict:
    """Runs the last step of a stage over the keys of all files; writes what goes, sorted by (file, row).

    Returns a tally as JSON: what it counted, and its seconds.
    """
    path = chosen_path(jobs[0].folder, jobs[0].number)
    report = path.with_suffix(".json")
    if report.exists():
        return json.loads(report.read_text(encoding="utf-8"))
    told = tally.Tally()
    with told.timed(stage.name_of(len(stage.steps))):
        tables = [mapped.open_mapped(job.keys).read_all() for job in jobs]
        dropped, counts, clusters = stage.last.choose(pa.concat_tables(tables))
    told.counts.update({f"{type(stage.last).__name__}: {name}": number for name, number in counts.items()})
    if clusters is not None:
        outputs = {job.file: job.output() for job in jobs}
        told.clusters[stage.name_of(len(stage.steps))] = duplicate_clusters.described(clusters, outputs)
    order = np.lexsort((dropped["row"], dropped["file"]))
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.save(file, dropped[order])
    temporary.replace(path)
    write_text(report, json.dumps(told.as_json()))
    return told.as_json()


def run_all(
    sources: Sequence[Source],
    steps: Sequence[Any],
    folder: pathlib.Path,
    *,
    workers: int,
    engine: Callable[[int], Any],
    progress: Callable[[int, int, int, int], None],
) -> tuple[tally.Tally, list[pathlib.Path], list[tuple[Source, tuple[str, ...]]]]:
    """(the tally, the Arrow files of the survivors, the sources and files of the parts).

    engine   called with `workers`, a context that gives a `map` of its own: results in the order of the jobs
    """
    parts = [part for source in sources for part in parts_of(source)]
    stages, total = stages_of(steps), tally.Tally()
    with engine(workers) as map_jobs:
        for number, stage in enumerate(stages):
            jobs = [Job(stage, number, i, source, paths, str(folder)) for i, (source, paths) in enumerate(parts)]
            for done, report in enumerate(map_jobs(run_stage, jobs)):
                total.add(tally.from_json(report))
                progress(number, len(stages), done + 1, len(jobs))
            if stage.last is not None:
                total.add(tally.from_json(choose(stage, jobs)))
    return total, [job.output() for job in jobs], parts


@contextlib.contextmanager
def processes(workers: int) -> Iterator[Callable[[Callable, Sequence[Job]], Iterator[dict]]]:
    """An engine: as many processes of this machine, or none but this one."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(workers, context) as executor:
            yield executor.map
    except concurrent.futures.process.BrokenProcessPool:
        raise ChildProcessError(
            "a worker was killed, by the system if memory ran out: the same command goes on where it stood; fewer "
            "workers need less memory"
        ) from None


def parts_of(source: Source) -> list[tuple[Source, tuple[str, ...]]]:
    """The files of a source, in groups of about PART_BYTES that follow from their order and sizes alone."""
    parts, paths, size = [], [], 0
    for path in source.reader.files():
        bytes_here = path.stat().st_size
        if paths and size + bytes_here > PART_BYTES:
            parts.append((source, tuple(paths)))
            paths, size = [], 0
        paths.append(str(path))
        size += bytes_here
    return [*parts, (source, tuple(paths))] if paths else parts


def write_text(path: pathlib.Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
