"""`t5x_like train`: runs a configuration."""

import os
import subprocess
import sys

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("train", "Train a configuration. The same command resumes it.")
    shared.add_config_options(parser)
    shared.add_device_options(parser)
    shared.add_module_option(parser)
    parser.add_argument("--dry_run", action="store_true", help="compile for this mesh, print the memory, write nothing")
    parser.add_argument("--start_fresh", action="store_true", help="set aside every checkpoint, begin at step 0")
    parser.add_argument("--take_over", action="store_true", help="take the folder from a run that is certainly gone")
    options = shared.parse(parser, arguments)
    if not options.gin_file:
        raise ValueError("train needs a configuration: --gin_file=configs/runs/NAME.gin")
    shared.start_devices(options)
    run, text = shared.resolve_run(options, options.gin_file, shared.SUPPLIED_TO_TRAIN)

    import jax

    from t5x_like.train.loop import train

    if options.module and jax.process_index() == 0:
        prepare(options.module, run["data"])
    if options.module and jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("prepared")
    flags = {"dry_run": options.dry_run, "start_fresh": options.start_fresh, "take_over": options.take_over}
    train(**run, **flags, config_text=text)


def prepare(modules: list[str], data) -> None:
    """In a process of its own, because TensorFlow has no place in this one; what is prepared already is left alone."""
    command = [sys.executable, "-m", "t5x_like", "prepare", data.mixture, f"--output_dir={data.directory}"]
    command += [f"--module={module}" for module in modules]
    finished = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False)
    if finished.returncode:
        raise RuntimeError(f"preparing {data.mixture} failed, see above; nothing was trained")
