"""A stage's parts as tasks of a Ray cluster, instead of processes of one machine: `engine=@ray_tasks`.

Every machine of the cluster needs this package and sees the sources and the output folder under the same paths (a
shared file system), since a part is read from files and leaves files. A task whose worker died is begun again by Ray;
it writes the same files. Steps over all documents still choose in the process that was started.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def ray_tasks(workers: int, *, address: str = "") -> Iterator[Callable[[Callable, Sequence[Any]], Iterator[Any]]]:
    """What runs a function over jobs and gives its results in their order, `workers` tasks of one processor at a time.

    address   of a cluster's head, "host:6379", or "auto" on one of its machines; empty: a cluster of `workers`
              processors on this machine, which ends with the run
    Raises ModuleNotFoundError without Ray, ConnectionError where no cluster answers, and what a job raised.
    """
    try:
        import ray
    except ImportError:
        raise ModuleNotFoundError(
            "engine ray_tasks needs Ray, which is not installed: pip install 't5x_like[ray]', or leave engine out to "
            "run in processes of this machine"
        ) from None
    where = {"address": address} if address else {"address": "local", "num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(**where, log_to_driver=False, logging_level="error")
    except ConnectionError:
        raise ConnectionError(
            f"no Ray cluster answers at {address!r}: start one with `ray start --head`, or leave ray_tasks.address out"
        ) from None
    try:
        yield lambda function, jobs: in_order(ray, function, jobs, workers)
    finally:
        ray.shutdown()


def in_order(ray: Any, function: Callable, jobs: Sequence[Any], workers: int) -> Iterator[Any]:
    """The results in the order of the jobs; a slow job holds back results, not other jobs."""
    task, waiting = ray.remote(function), enumerate(jobs)
    running: dict[Any, int] = {}
    done: dict[int, Any] = {}
    following = 0
    while True:
        for place, job in itertools.islice(waiting, workers - len(running)):
            running[task.remote(job)] = place
        if not running:
            return
        for reference in ray.wait(list(running))[0]:
            done[running.pop(reference)] = result_of(ray, reference)
        while following in done:
            yield done.pop(following)
            following += 1


def result_of(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise ChildProcessError(
            f"Ray gave a part up after its worker died several times ({type(error).__name__}): the same command goes "
            "on where it stood; fewer workers need less memory"
        ) from None
