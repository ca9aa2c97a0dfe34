"""Options that several commands share: configurations, devices, processes, task modules."""

import argparse
import difflib
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NoReturn

PACKAGE_FOLDER = pathlib.Path(__file__).resolve().parents[2]


class Parser(argparse.ArgumentParser):
    """argparse, with its errors as ours: one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}; `{self.prog} --help` shows how to write it")


def parser_for(command: str, description: str) -> Parser:
    return Parser(prog=f"t5x_like {command}", description=description, allow_abbrev=False)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "name=value sets a macro of the configuration or a parameter of train (steps=100), module.name=value any other "
        "(adamw.b2=0.98), --gin.NAME=VALUE likewise with gin's quoting. Later wins."
    )
    parser.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="repeatable; later wins")
    parser.add_argument("--gin_search_paths", default="", metavar="DIR,DIR", help="where to look for gin files")
    parser.add_argument(
        "--allow_imports", action="append", default=[], metavar="PREFIX", help="modules a config may import"
    )
    parser.add_argument("overrides", nargs="*", metavar="name=value")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_cpu_devices", type=int, metavar="N", help="simulate N devices on the processor")
    parser.add_argument(
        "--distributed", action="store_true", help="several processes; ask the cluster (TPU, Slurm, MPI)"
    )
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="several processes, by hand: where process 0 listens"
    )
    parser.add_argument("--num_processes", type=int, metavar="N")
    parser.add_argument("--process_id", type=int, metavar="I")


def add_module_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--module", action="append", default=[], metavar="FILE_OR_NAME", help="registers SeqIO tasks; repeatable"
    )


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """As parse_args; `--gin.NAME=VALUE` joins the overrides, in the order of the command line."""
    gin = [argument for argument in arguments if argument.startswith("--gin.")]
    parsed, rest = parser.parse_known_args([argument for argument in arguments if argument not in gin])
    loose = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
    if unknown := [argument for argument in rest if argument not in loose]:
        raise ValueError(f"{parser.prog} does not know {unknown[0]!r}{nearest_option(parser, unknown[0])}")
    if hasattr(parsed, "overrides"):
        wanted = {*gin, *parsed.overrides, *loose}
        parsed.overrides = [argument for argument in arguments if argument in wanted]
    elif loose or gin:
        raise ValueError(f"{parser.prog} takes no {(loose or gin)[0]!r}")
    return parsed


def nearest_option(parser: argparse.ArgumentParser, unknown: str) -> str:
    known = [option for action in parser._actions for option in action.option_strings if option != "-h"]
    near = difflib.get_close_matches(unknown.partition("=")[0], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; its options are {', '.join(known)}"


# Of a simulated device, its collectives: several at a time use up the threads of few cores with waiting for each other.
ONE_AFTER_THE_OTHER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def start_devices(options: argparse.Namespace) -> None:
    """Before JAX is used for the first time."""
    import jax

    from t5x_like.train import distributed, guards

    if options.num_cpu_devices:
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), ONE_AFTER_THE_OTHER]).strip()
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.num_cpu_devices)
    if options.distributed or options.coordinator:
        distributed.start_distributed(
            coordinator=options.coordinator, num_processes=options.num_processes, process_id=options.process_id
        )
        guards.leave_on_uncaught_exception(jax.process_count())


def search_paths(options: argparse.Namespace) -> list[str]:
    given = [path for path in options.gin_search_paths.split(",") if path]
    return [*given, str(PACKAGE_FOLDER / "configs"), str(PACKAGE_FOLDER)]


def resolve_run(options: argparse.Namespace, files: list[str], supplied: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """(the arguments for `train`, the resolved text): nothing is built twice, and nothing is trained yet."""
    from t5x_like import configs
    from t5x_like.configurables import CONFIGURABLES

    table = {**CONFIGURABLES, "train": arguments_of(CONFIGURABLES["train"])}
    resolved = configs.resolve(
        table,
        files,
        options.overrides,
        root="train",
        search_paths=search_paths(options),
        supplied=supplied,
        allow_imports=options.allow_imports,
    )
    return resolved.call(), resolved.text


def resolve_model(files: list[str]) -> Callable:
    """What `train.model` is in these files, whatever else they leave open."""
    return resolve_open(files)["model"]


def resolve_open(files: list[str]) -> dict[str, Any]:
    """The arguments of `train` as far as these files say them."""
    from t5x_like import configs
    from t5x_like.configurables import CONFIGURABLES

    table = {**CONFIGURABLES, "train": arguments_of(CONFIGURABLES["train"])}
    where = {"root": "train", "search_paths": [str(PACKAGE_FOLDER / "configs"), str(PACKAGE_FOLDER)]}
    left = [key.removeprefix("train.") for key in configs.left_open(table, files, **where) if key.startswith("train.")]
    supplied = tuple(dict.fromkeys([*left, *SUPPLIED_TO_TRAIN]))
    resolved = configs.resolve(table, files, [], supplied=supplied, **where)
    return resolved.call(**dict.fromkeys(left))


def arguments_of(function: Callable) -> Callable[..., dict[str, Any]]:
    """A function with the same signature that returns what it was called with."""

    @functools.wraps(function)
    def collect(**arguments):
        return arguments

    return collect


SUPPLIED_TO_TRAIN = ("config_text", "dry_run", "start_fresh", "take_over")


def open_run(options: argparse.Namespace, model_dir: str):
    """The run in a folder, as its own config.gin says, with the overrides of this command."""
    from t5x_like.evaluation.load import Run

    config = pathlib.Path(model_dir) / "config.gin"
    if not config.is_file():
        raise FileNotFoundError(f"{model_dir} is not a run folder: it has no config.gin; give the model_dir of a run")
    options.overrides = [*options.overrides, f"train.model_dir={model_dir}"]  # the folder may have been moved
    arguments, _ = resolve_run(options, [str(config)], supplied=SUPPLIED_TO_TRAIN)
    return Run(pathlib.Path(model_dir), arguments)
