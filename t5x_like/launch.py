"""The command line: `commands/NAME.py` holds command NAME. Nothing heavy is imported before a command is chosen."""

import difflib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence

USER_ERROR = 2
BAD_NUMBERS = 17
INTERRUPTED = 130

COMMANDS = {
    "doctor": "versions, devices, free disk, a write probe and a two-process check",
    "curate": "raw web pages, books, code -> clean, deduplicated, mixed shards of text",
    "tokenizer": "train a vocabulary, or look at one",
    "tasks": "list, show, new, check: the registered SeqIO tasks and mixtures",
    "prepare": "task or mixture -> prepared dataset, once before training",
    "plan": "what a configuration takes on a mesh, on chips that need not be here",
    "train": "run a configuration; the same command resumes it",
    "evaluate": "held-out loss of one, all or every new checkpoint, and samples",
    "generate": "continue or transform the texts of a JSONL file",
    "score": "log-likelihood of the targets of a JSONL file",
    "report": "runs as one HTML file with plots",
    "import": "a Hugging Face folder -> model.gin and a checkpoint",
    "export": "a checkpoint -> a Hugging Face folder",
    "inspect": "a run's checkpoints: steps, sizes, what is wrong, who is writing",
    "verify": "check every digest of a run's checkpoints; exit 1 if one is wrong",
}


def console() -> None:
    """`main` in a process of its own: after an error, what libraries' threads still have to say is not waited for."""
    if "--traceback" not in sys.argv:
        sys.unraisablehook = lambda _: None  # a failed save leaves Orbax's threads with a closed event loop
    try:
        main()
    except SystemExit as leaving:
        if leaving.code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code)


def main(argv: Sequence[str] | None = None) -> None:
    if argv is None:  # the process is ours alone
        quiet_libraries()
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(overview())
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "`t5x_like --help` lists the commands"
        print(f"t5x_like: error: no command {command!r}: {hint}", file=sys.stderr)
        sys.exit(USER_ERROR)
    try:
        code = run(command, arguments[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough, as in `t5x_like tasks list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except FloatingPointError as error:
        code = fail(error, show_traceback, code=BAD_NUMBERS)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        code = fail(error, show_traceback, code=USER_ERROR)
    leave(code or 0)


def quiet_libraries() -> None:
    """What is written is ours: an error of a library is told in our sentence. Before the first of them is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's and XLA's C++
    logging.disable(logging.CRITICAL)  # absl (Orbax), asyncio, JAX, TensorFlow
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def run(command: str, arguments: list[str]) -> int | None:
    return importlib.import_module(f"t5x_like.commands.{command}").main(arguments)


def fail(error: Exception, show_traceback: bool, code: int) -> int:
    if show_traceback:
        raise error
    print(f"t5x_like: error: {sentence(error)}", file=sys.stderr)
    return code


def sentence(error: Exception) -> str:
    """The error as a person says it: no numbers of the system, no C++ stack below the first line of JAX's errors."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error) or type(error).__name__
    return text if type(error).__module__ == "builtins" else text.splitlines()[0]


def leave(code: int) -> None:
    """Ends the process; among several, without waiting for peers that this one would keep waiting."""
    if "jax" in sys.modules:
        import jax

        from t5x_like.train import guards

        guards.leave(code, num_processes=jax.process_count() if jax.distributed.is_initialized() else 1)
    sys.exit(code)


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: t5x_like COMMAND [options] [name=value ...]",
            "",
            "Pretrain language models in JAX: raw text to an evaluated checkpoint.",
            "",
            *lines,
            "",
            "`t5x_like COMMAND --help` says more. --traceback shows where an error came from.",
        ]
    )


if __name__ == "__main__":
    console()
