"""Shards written one after another in this process, or side by side in spawned ones. The bytes are the same."""

import concurrent.futures
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence

from t5x_like.tasks import registry
from t5x_like.tasks.cache_point import Cut, cut
from t5x_like.tasks.held_stderr import held_stderr
from t5x_like.tasks.shards import ShardJob, write_shard

_POLL_SECONDS = 0.5

# What `run` yields: a finished job with its counts, or (None, None) for news of tokens alone; and all tokens so far.
News = tuple[ShardJob | None, dict | None, int]


def run(name: str, where: Cut, jobs: Sequence[ShardJob], num_workers: int, modules: Sequence[str]) -> Iterator[News]:
    """Writes the shards of task `name`. `modules` register it in every spawned worker."""
    if num_workers == 1 or len(jobs) < 2:
        yield from _run_here(where, jobs)
    else:
        yield from _run_spawned(name, jobs, min(num_workers, len(jobs)), modules)


def _run_here(where: Cut, jobs: Sequence[ShardJob]) -> Iterator[News]:
    tokens = 0

    def report(count: int) -> None:
        nonlocal tokens
        tokens += count

    for job in jobs:
        stats = write_shard(where, job, report)
        yield job, stats, tokens


def _run_spawned(name: str, jobs: Sequence[ShardJob], num_workers: int, modules: Sequence[str]) -> Iterator[News]:
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    tokens = context.Value("q", 0)
    with concurrent.futures.ProcessPoolExecutor(
        num_workers, context, _start, (os.getpid(), name, list(map(str, modules)), tokens)
    ) as pool:
        with held_stderr():  # the workers, which start here and import TensorFlow, never write to it
            pending = {pool.submit(_write, job): job for job in jobs}
        try:
            while pending:
                done, _ = concurrent.futures.wait(pending, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result(), tokens.value
                yield None, None, tokens.value
        except concurrent.futures.process.BrokenProcessPool as error:
            raise ValueError(
                f"a worker preparing {name} was killed, perhaps for lack of memory: finished shards are kept, run the "
                "same command again with fewer workers"
            ) from error
        finally:
            for future in pending:
                future.cancel()


_worker: dict = {}  # of a spawned process: its task, cut once, and the counter that it shares


def _start(parent: int, name: str, modules: Sequence[str], tokens) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        registry.import_modules(modules)
        _worker.update(cut=cut(registry.find(name)), tokens=tokens)
    except Exception as error:  # raised by the first job: an error here would only break the pool
        _worker["error"] = error


def _end_with(parent: int) -> None:
    """A worker outlives a killed parent otherwise, and would write beside the one that resumes."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _write(job: ShardJob) -> dict:
    if "error" in _worker:
        raise _worker["error"]

    def report(count: int) -> None:
        with _worker["tokens"].get_lock():
            _worker["tokens"].value += count

    return write_shard(_worker["cut"], job, report)
