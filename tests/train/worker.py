"""A process of test runs: python -m tests.train.worker DATA MODEL_DIRS STEPS [COORDINATOR PROCESS_ID NUM_PROCESSES].

MODEL_DIRS are run one after the other; a colon stands between two.
"""

import os
import pathlib
import sys

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path("~/.cache/t5x_like/jax").expanduser()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

from t5x_like.train.distributed import start_distributed  # noqa: E402
from tests.train import tiny  # noqa: E402

if __name__ == "__main__":
    directory, model_dirs, steps, *peers = sys.argv[1:]
    if peers:
        jax.config.update("jax_num_cpu_devices", 1)
        coordinator, process_id, num_processes = peers
        start_distributed(coordinator=coordinator, process_id=int(process_id), num_processes=int(num_processes))
    for model_dir in model_dirs.split(os.pathsep):
        tiny.run(pathlib.Path(model_dir), tiny.pipeline(pathlib.Path(directory)), int(steps))
