"""Gin, in one place: reads config files and overrides, refuses what has no effect, and writes all that is used.

Only gin's parser is used, so there is no global state, and a config reaches nothing but the table it is given.
The meaning is gin's: `scope/name.parameter = value`; `@name` is a function to be called later, `@name()` the result of
calling it each time it is needed; `MACRO = value` and `%MACRO`; later wins. `@scope/name` replaces the scope, `@name`
keeps the one of the place where it is written.

  file       train.model = @Decoder              text   train.model = @Decoder  # runs/tiny.gin:1
             Decoder.d_model = %WIDTH                   Decoder.d_model = %WIDTH  # runs/tiny.gin:2
             WIDTH = 32                                 Decoder.dropout_rate = 0.0  # default
"""

import importlib
import io
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gin import config_parser

from t5x_like.config_graph import (
    COMMAND_LINE,
    FOREVER,
    Config,
    Configured,
    Macro,
    Place,
    Reach,
    Reference,
    Statement,
    binding_key,
    nearest,
    write,
)

ALLOWED_IMPORTS = ("t5x_like", "data_tasks")
MAX_INCLUDES = 2
HEADER = "# Resolved by t5x_like: every value and where it came from. This file alone restarts the run."


class Resolved(NamedTuple):
    """call()   builds the arguments of the root and calls it; parameters named in `supplied` are given to it
    text      the whole config, defaults included; alone it restarts the run
    origins   of each binding and macro in `text`
    imports   the modules that the config imported
    """

    call: Callable[..., Any]
    text: str
    origins: dict[str, str]
    imports: tuple[str, ...]


def resolve(
    configurables: Mapping[str, Callable],
    files: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    root: str,
    search_paths: Sequence[str] = (),
    supplied: Sequence[str] = (),
    allow_imports: Sequence[str] = (),
) -> Resolved:
    """The configured `root`. Raises ValueError with everything that is wrong, before anything of the config is called.

    Overrides are `name=value` (a value that is no gin literal is a string; a name without a dot is a macro of the
    config or a parameter of `root`) and T5X's `--gin.NAME=VALUE`. `supplied` are the parameters of `root` that the
    caller gives. `allow_imports` are prefixes of modules that a config may import, besides ALLOWED_IMPORTS.
    """
    config, reach, imports = understand(configurables, files, overrides, root, search_paths, allow_imports)
    raise_all([*reach.unused(), *reach.missing(root, supplied).values(), *config.clashes(root, supplied)])
    text, origins = write(config, reach, HEADER, imports, supplied)
    return Resolved(Configured(config, Place("", root)), text, origins, tuple(imports))


def left_open(
    configurables: Mapping[str, Callable],
    files: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    root: str,
    search_paths: Sequence[str] = (),
    allow_imports: Sequence[str] = (),
) -> list[str]:
    """The bindings that files and overrides leave open, such as `train.folder`."""
    _, reach, _ = understand(configurables, files, overrides, root, search_paths, allow_imports)
    return list(reach.missing(root, ()))


def understand(
    configurables: Mapping[str, Callable],
    files: Sequence[str],
    overrides: Sequence[str],
    root: str,
    search_paths: Sequence[str],
    allow_imports: Sequence[str],
) -> tuple[Config, Reach, dict[str, str]]:
    reader = Reader(search_paths, ALLOWED_IMPORTS + tuple(allow_imports))
    for file in files:
        reader.read(file, depth=0, included_at=COMMAND_LINE)
    raise_all(reader.problems)  # before the first import runs code
    brought = reader.run_imports()
    taken = [name for name, function in brought.items() if configurables.get(name, function) is not function]
    raise_all([*reader.problems, *(f"an imported module redefines {name!r}; give it another name" for name in taken)])
    config = Config({**configurables, **brought})
    if root not in config.table:
        raise ValueError(f"unknown configurable {root!r}{nearest(root, config.table)}")
    for statement in reader.statements:
        config.add(statement)
    problems = add_overrides(config, overrides, root, len(reader.statements))
    raise_all([*problems, *config.unknown_names(), *config.wrong_types()])
    reach = Reach(config)
    reach.visit(Reference("", root, False), "", FOREVER, ())
    raise_all(reach.problems)
    return config, reach, reader.imports


def raise_all(problems: Sequence[str]) -> None:
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        raise ValueError(f"{len(problems)} problems in the configuration:\n  " + "\n  ".join(problems))


# Reading


class Syntax(config_parser.ParserDelegate):
    """References and macros stay data; nothing is looked up while parsing."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        scope, _, name = scoped_configurable_name.rpartition("/")
        return Reference(scope, name, evaluate)

    def macro(self, macro_name):
        return Macro(macro_name)


def parse_value(text: str) -> Any:
    """The value that `text` alone stands for. Raises SyntaxError."""
    try:
        parser = config_parser.ConfigParser(text.strip(), Syntax())
        value = parser.parse_value()
    except (tokenize.TokenError, ValueError) as error:
        raise SyntaxError(str(error)) from None
    if parser.current_token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER):
        raise SyntaxError(f"cannot read {text!r} as one value")
    return value


class Reader:
    """Statements of files in order, includes in their place; what is wrong is collected."""

    def __init__(self, search_paths: Sequence[str], allowed: tuple[str, ...]):
        self.search_paths = [Path(path) for path in search_paths]
        self.allowed = allowed
        self.statements: list[Statement] = []
        self.imports: dict[str, str] = {}  # module: origin
        self.problems: list[str] = []

    def read(self, name: str, depth: int, included_at: str) -> None:
        path = next((path for path in [Path(name), *(p / name for p in self.search_paths)] if path.is_file()), None)
        if path is None:
            files = [f.relative_to(p).as_posix() for p in self.search_paths for f in sorted(p.rglob("*.gin"))]
            self.problems.append(f"no config file {name!r} ({included_at}){nearest(name, files)}")
            return
        if depth > MAX_INCLUDES:
            self.problems.append(
                f"{included_at}: more than {MAX_INCLUDES} levels of include; include {name!r} higher up"
            )
            return
        try:
            text = path.read_text("utf-8")
            kept_origins = comments(text) if text.startswith(HEADER) else {}
            for statement in config_parser.ConfigParser(text, Syntax()):
                line = statement.location.line_num
                self.take(statement, f"{name}:{line}", kept_origins.get(line), depth)
        except UnicodeDecodeError as error:
            self.problems.append(f"{name} is not UTF-8 text: {error}")
        except (SyntaxError, tokenize.TokenError, ValueError) as error:
            self.problems.append(f"{name}{explain(error)}")

    def take(self, statement: Any, origin: str, kept_origin: str | None, depth: int) -> None:
        if isinstance(statement, config_parser.BindingStatement):
            place = Place(statement.scope, statement.selector)
            if not statement.arg_name:
                place = Place("", binding_key(place, ""))
            order = len(self.statements)
            self.statements.append(Statement(place, statement.arg_name, statement.value, kept_origin or origin, order))
        elif isinstance(statement, config_parser.IncludeStatement):
            self.read(statement.filename, depth + 1, origin)
        elif isinstance(statement, config_parser.ImportStatement):
            self.take_import(statement.module, origin)

    def take_import(self, module: str, origin: str) -> None:
        if module.startswith("__gin__"):
            self.problems.append(
                f"{origin}: dynamic registration is refused, since it lets a config call anything; "
                "name a configurable of the table and remove the line"
            )
        elif not any(module == prefix or module.startswith(f"{prefix}.") for prefix in self.allowed):
            self.problems.append(
                f"{origin}: import of {module!r} is refused, since it runs code; allowed are {', '.join(self.allowed)} "
                f"(--allow_imports={module.split('.')[0]} widens this)"
            )
        else:
            self.imports.setdefault(module, origin)

    def run_imports(self) -> dict[str, Callable]:
        """Imports the modules; their CONFIGURABLES, where they have such a table, join ours."""
        table: dict[str, Callable] = {}
        for module, origin in self.imports.items():
            print(f"{origin}: importing {module}")
            try:
                table |= vars(importlib.import_module(module)).get("CONFIGURABLES", {})
            except ModuleNotFoundError as error:
                self.problems.append(f"{origin}: cannot import {module!r}: {error}")
        return table


def comments(text: str) -> dict[int, str]:
    """Line number: the comment at its end."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string.removeprefix("# ") for t in tokens if t.type == tokenize.COMMENT and t.start[1] > 0}


def explain(error: Exception) -> str:
    """`:line: what is wrong` of the several things that gin's parser and Python's tokenizer raise."""
    where = error.args[1] if len(error.args) > 1 else None
    line, content = "", ""
    if isinstance(where, tuple) and len(where) == 4:  # (file, line, column, text)
        line, content = f":{where[1]}", f" in `{where[3].strip()}`"
    elif isinstance(where, tuple):  # a TokenError: (line, column)
        line = f":{where[0]}"
    message = str(error.args[0]).split("\n")[0].strip().rstrip(".")
    hint = " (strings need quotes)" if "malformed" in message or "parse value" in message else ""
    return f"{line}: syntax error: {message}{content}{hint}"


def add_overrides(config: Config, overrides: Sequence[str], root: str, order: int) -> list[str]:
    problems, macros = [], set(config.macros())
    for override in overrides:
        name, equals, text = override.removeprefix("--gin.").partition("=")
        is_gin = override.startswith("--gin.")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w./]*", name):
            problems.append(f"cannot read the override {override!r}; write name=value or --gin.NAME=VALUE")
            continue
        try:
            value = parse_value(text)
        except SyntaxError as error:
            if is_gin or text.lstrip()[:1] in {*"@%[({'\""}:
                problems.append(f"the override {override!r} has no gin value{explain(error)}")
                continue
            value = text
        scope, _, selector = name.rpartition("/")
        if "." not in selector and not is_gin and name not in macros:
            if problem := unknown_override(config, name, root, macros):
                problems.append(problem)
                continue
            selector = f"{root}.{selector}"
        elif "." not in selector and not is_gin and name in config.signature(root).parameters:
            problems.append(f"{name!r} is a macro and a parameter; write {root}.{name}=... or --gin.{name}=...")
            continue
        selector, _, parameter = selector.rpartition(".") if "." in selector else (name, "", "")
        config.add(Statement(Place(scope if parameter else "", selector), parameter, value, COMMAND_LINE, order))
    return problems


def unknown_override(config: Config, name: str, root: str, macros: set[str]) -> str | None:
    known = config.signature(root)
    if name in known.parameters:
        return None
    owners = [f"{other}.{name}" for other in config.table if name in config.signature(other).parameters]
    close = nearest(name, [*known.parameters, *macros])
    hint = f"; did you mean {' or '.join(owners[:3])}?" if owners else close
    return f"unknown name {name!r} ({COMMAND_LINE}): no macro of the config and no parameter of {root}{hint}"
