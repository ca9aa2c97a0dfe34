"""SeqIO's registries: import the modules that fill them, and find a task or mixture by name."""

import difflib
import hashlib
import importlib
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Sequence

import seqio


def import_modules(names_or_paths: Sequence[str | pathlib.Path]) -> None:
    """Imports modules that register tasks: by name (`data_tasks`) or by path (`my_tasks.py`), each once."""
    for name in map(str, names_or_paths):
        path = pathlib.Path(name)
        try:
            if path.suffix == ".py":
                _import_file(path)
            else:
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name.split(".")[0]:
                raise ValueError(
                    f"no module {name!r}: give a module on the Python path or a file ending in .py"
                ) from error
            raise ValueError(f"task module {name} imports {error.name}, which is not installed") from error
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"task module {name} failed{_line(error, name)}: {error}") from error


def find(name: str) -> seqio.Task | seqio.Mixture:
    """The registered task or mixture; ValueError with the nearest names when there is none."""
    names = registered()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = (
            f"did you mean {', '.join(near)}?" if near else f"{len(names)} are registered; name your file with --module"
        )
        raise ValueError(f"no task or mixture {name!r}: {hint}")
    return seqio.get_mixture_or_task(name)


def registered() -> list[str]:
    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})


def _import_file(path: pathlib.Path) -> None:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
        raise FileNotFoundError(f"no task file {path}" + (f"; did you mean {near[0]}?" if near else ""))
    resolved = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(resolved).encode()).hexdigest()[:8]}"  # two files may be called tasks.py
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, resolved)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _line(error: Exception, name: str) -> str:
    """Where in the module it happened, if the traceback or the syntax error says so."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(pathlib.Path(name).name)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    return f" at line {line}" if line else ""
