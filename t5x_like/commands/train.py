"""`t5x_like train`: runs a configuration."""

import os
import subprocess
import sys

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> int:
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

    if options.module and jax.process_index() == 0 and (code := prepare(options.module, run["data"])):
        return code
    if options.module and jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("prepared")
    flags = {"dry_run": options.dry_run, "start_fresh": options.start_fresh, "take_over": options.take_over}
    train(**run, **flags, config_text=text)
    return 0


def prepare(modules: list[str], data) -> int:
    """The exit code of `prepare` (which has said what was wrong), in a process of its own: TensorFlow has no place in
    this one. What is prepared already is left alone.
    """
    command = [sys.executable, "-m", "t5x_like", "prepare", data.mixture, f"--output_dir={data.directory}"]
    command += [f"--module={module}" for module in modules]
    code = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False).returncode
    if code < 0:
        raise RuntimeError(
            f"preparing {data.mixture} was ended by signal {-code}, perhaps for lack of memory; nothing was trained"
        )
    return code
