"""One recipe by Ray, whose first worker is killed in the middle, and by this process alone: prints both results.

python -m tests.corpus.ray_run FOLDER
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import sys

from t5x_like.corpus import curate, ray_engine, run
from tests.corpus import test_curate


@dataclasses.dataclass(frozen=True)
class DiesOnce:
    """Kills its process at the first batch that any process gives it."""

    mark: str

    def __call__(self, batch):
        if not pathlib.Path(self.mark).exists():
            pathlib.Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


def main() -> None:
    folder, said = pathlib.Path(sys.argv[1]), []
    run.PART_BYTES = 1
    test_curate.write_pages(folder / "raw")
    steps = (*test_curate.STEPS, DiesOnce(str(folder / "died")))

    @contextlib.contextmanager
    def cluster(workers):
        with ray_engine.ray_tasks(workers) as map_jobs:
            said.append(refusal(map_jobs, folder / "missing"))
            yield map_jobs

    for name, engine, workers in (("ray", cluster, 2), ("processes", run.processes, 1)):
        recipe = test_curate.recipe(folder / "raw", steps=steps, workers=workers, engine=engine)
        manifest = curate.curate(output_dir=str(folder / name), **recipe)
        print(json.dumps([manifest, (folder / "died").exists(), said]))


def refusal(map_jobs, folder: pathlib.Path) -> str:
    """What a job raises on a worker comes out as it was raised."""
    try:
        return str(list(map_jobs(names_in, [folder])))
    except FileNotFoundError as error:
        return str(error)


def names_in(folder: pathlib.Path) -> list[str]:
    return os.listdir(folder)


if __name__ == "__main__":
    main()
