"""`t5x_like curate` again and again, each time killed (-9) just before it renames a file that it never renamed before.

python -m tests.corpus.killed_everywhere FILE ARGUMENTS..., until a run comes to its end; FILE gets a line per kill.
Each file of the input is a part. Runs are forks, so that nothing is imported twice.
"""

import os
import pathlib
import signal
import sys

import rich.console
import rich.progress
import rich.table  # noqa: F401 - what a run imports is imported once, before the forks

from t5x_like import configs, launch  # noqa: F401
from t5x_like.commands import curate  # noqa: F401
from t5x_like.corpus import run, table  # noqa: F401


def main() -> None:
    log, arguments = pathlib.Path(sys.argv[1]), sys.argv[2:]
    log.touch()
    run.PART_BYTES = 1
    while True:
        child = os.fork()
        if not child:
            run_once(log, arguments)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(os.waitstatus_to_exitcode(status))


def run_once(log: pathlib.Path, arguments: list[str]) -> None:
    seen, rename = set(log.read_text().splitlines()), pathlib.Path.replace

    def replace(path: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        if pathlib.Path(target).name not in seen:
            with log.open("a") as file:
                file.write(f"{pathlib.Path(target).name}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    pathlib.Path.replace = replace
    launch.main(arguments)
    os._exit(0)


if __name__ == "__main__":
    main()
