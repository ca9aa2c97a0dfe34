"""What the statements of a config mean: which the root reaches, what is built of them, and what is wrong with them.

A value is a literal, a reference or a macro, or a container of those. Nothing here parses, and nothing is global.
"""

import ast
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from t5x_like.config_types import MISSING, Signature, fits, signature, spell

COMMAND_LINE = "command line"
DEFAULT = "default"
FOREVER = math.inf


@dataclass(frozen=True)
class Reference:
    """`@scope/name` or, if `called`, `@scope/name()`."""

    scope: str
    name: str
    called: bool


@dataclass(frozen=True)
class Macro:
    name: str


class Place(NamedTuple):
    """A configurable as seen from a scope; "" is no scope."""

    scope: str
    name: str


class Statement(NamedTuple):
    """`place.parameter = value`, or a macro: `place.name = value`, its scope part of its name, and no parameter."""

    place: Place
    parameter: str
    value: Any
    origin: str  # runs/tiny.gin:3, command line, default
    order: int  # later statements have larger ones; those of the command line share one

    @property
    def key(self) -> str:
        return binding_key(self.place, self.parameter)


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The end of a sentence about an unknown name."""
    if close := difflib.get_close_matches(name, list(known), n=1, cutoff=0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known)[:12])}{' ...' if len(known) > 12 else ''}" if known else ""


def binding_key(place: Place, parameter: str) -> str:
    return (f"{place.scope}/" if place.scope else "") + place.name + (f".{parameter}" if parameter else "")


def parts(value: Any) -> Iterator[Any]:
    """The value, or what a container of the config holds, at any depth."""
    if type(value) in (list, tuple):
        for item in value:
            yield from parts(item)
    elif type(value) is dict:
        for item in [*value.keys(), *value.values()]:
            yield from parts(item)
    else:
        yield value


def replaced(value: Any, replace: Callable[[Any], Any]) -> Any:
    """The value with `replace` done to everything that is no container; a named tuple is a built value."""
    if type(value) in (list, tuple):
        return type(value)(replaced(item, replace) for item in value)
    if type(value) is dict:
        return {replaced(key, replace): replaced(item, replace) for key, item in value.items()}
    return replace(value)


class Config:
    """The table and the statements about it; `history[key]` in order, so the last one counts."""

    def __init__(self, table: Mapping[str, Callable]):
        self.table = table
        self.history: dict[str, list[Statement]] = {}
        self.signatures: dict[str, Signature] = {}

    def add(self, statement: Statement) -> None:
        self.history.setdefault(statement.key, []).append(statement)

    def signature(self, name: str) -> Signature:
        if name not in self.signatures:
            self.signatures[name] = signature(self.table[name])
        return self.signatures[name]

    def required(self, name: str) -> list[str]:
        return [other for other, parameter in self.signature(name).parameters.items() if parameter.default is MISSING]

    def last(self) -> list[Statement]:
        return [statements[-1] for statements in self.history.values()]

    def macros(self) -> list[str]:
        return [statement.place.name for statement in self.last() if not statement.parameter]

    def candidates(self, place: Place, parameter: str) -> list[Statement]:
        """All statements about a parameter as seen from a scope; the last counts: deepest scope, then latest."""
        scopes = place.scope.split("/") if place.scope else []
        keys = [binding_key(Place("/".join(scopes[:i]), place.name), parameter) for i in range(len(scopes) + 1)]
        return [statement for key in keys for statement in self.history.get(key, [])]

    def bound(self, place: Place) -> dict[str, Statement]:
        """The statement that counts for each parameter that has one, in the order of the signature."""
        names = {s.parameter for s in self.last() if s.place.name == place.name and s.parameter}
        ordered = [name for name in self.signature(place.name).parameters if name in names]
        found = {name: self.candidates(place, name) for name in [*ordered, *sorted(names - set(ordered))]}
        return {name: statements[-1] for name, statements in found.items() if statements}

    def unknown_names(self) -> Iterator[str]:
        """Configurables, parameters and macros that do not exist, in any statement, overridden or not."""
        macros = self.macros()
        for statement in [s for statements in self.history.values() for s in statements]:
            where = f"({statement.origin})"
            name = statement.place.name
            if statement.parameter and name not in self.table:
                yield f"unknown configurable {name!r} in {statement.key} {where}{nearest(name, self.table)}"
            elif statement.parameter and not self.signature(name).takes_any_name:
                known = self.signature(name).parameters
                if statement.parameter not in known:
                    close = nearest(statement.parameter, known)
                    yield f"{name} has no parameter {statement.parameter!r} {where}{close}"
            for part in parts(statement.value):
                if isinstance(part, Reference) and part.name not in self.table:
                    close = nearest(part.name, self.table)
                    yield f"unknown configurable {part.name!r} in the value of {statement.key} {where}{close}"
                if isinstance(part, Macro) and part.name == "gin.REQUIRED":
                    yield f"{statement.key} {where}: a parameter without default is required anyway; remove the line"
                elif isinstance(part, Macro) and part.name not in macros:
                    close = nearest(part.name, macros)
                    yield f"undefined macro %{part.name} in the value of {statement.key} {where}{close}"

    def literal(self, value: Any, seen: tuple[str, ...] = ()) -> Any:
        """The value with its macros replaced by what they stand for."""

        def expand(part: Any) -> Any:
            known = isinstance(part, Macro) and part.name in self.history and part.name not in seen
            return self.literal(self.history[part.name][-1].value, (*seen, part.name)) if known else part

        return replaced(value, expand)

    def wrong_types(self) -> Iterator[str]:
        """Literals, and macros that stand for literals, that do not fit the hint. References are checked when built."""
        for statement in self.last():
            if not statement.parameter or statement.place.name not in self.table:
                continue
            parameter = self.signature(statement.place.name).parameters.get(statement.parameter)
            value = self.literal(statement.value)
            if parameter is None or any(isinstance(part, Reference | Macro) for part in parts(value)):
                continue
            if not fits(value, parameter.hint) and repr(value) != repr(parameter.default):
                through = [part.name for part in parts(statement.value) if isinstance(part, Macro)]
                via = "".join(f", %{name} is set at {self.history[name][-1].origin}" for name in through)
                yield f"{statement.key} = {value!r} ({statement.origin}{via}): {misfit(value, parameter.hint)}"

    def clashes(self, root: str, supplied: Sequence[str]) -> list[str]:
        bound = self.bound(Place("", root))
        taken = [bound[name] for name in supplied if name in bound and bound[name].origin != DEFAULT]
        return [f"{s.key} ({s.origin}) is set by the command itself; remove it" for s in taken]


def misfit(value: Any, hint: Any) -> str:
    remedy = ""
    if isinstance(value, str):
        capital = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(value.lower(), value)
        try:
            meant = ast.literal_eval(capital)
            remedy = f"; write {capital} (no quotes)" if fits(meant, hint) else ""
        except (ValueError, SyntaxError):
            remedy = ""
    elif fits(str(value), hint):
        remedy = f"; write {str(value)!r} (with quotes)"
    return f"it must be {spell(hint)}, not {type(value).__name__}{remedy}"


class Reach:
    """What the root reaches, by way of values that count, and of values that counted before they were replaced.

    A reference in a statement that was replaced still makes use of the bindings written before the replacement: so a
    run file with an optimizer and its settings may be followed by another optimizer. A binding of the command line, or
    one that is written after the replacement, must have an effect.
    """

    def __init__(self, config: "Config"):
        self.config = config
        self.until: dict[Place, float] = {}  # bindings with a smaller order had an effect
        self.used: dict[str, float] = {}  # the same for the key of each binding and macro
        self.places: list[Place] = []  # what counts, in order
        self.macros: list[str] = []
        self.called: dict[Place, Statement] = {}  # places that are called with nothing but their bindings
        self.problems: list[str] = []

    def visit(self, reference: Reference, scope: str, limit: float, path: tuple[Any, ...]) -> None:
        place = Place(reference.scope or scope, reference.name)
        if not reference.called:
            path = ()  # built later, if at all, so it may name what names it
        elif place in path:
            self.problems.append(f"@{binding_key(place, '')}() is a part of itself")
        if self.until.get(place, -1) >= limit:
            return
        self.until[place] = limit
        if limit == FOREVER:
            self.places.append(place)
        names = {s.parameter for s in self.config.last() if s.place.name == place.name and s.parameter}
        ordered = self.config.signature(place.name).parameters
        for name in [*(n for n in ordered if n in names), *sorted(names - set(ordered))]:
            self.follow(self.config.candidates(place, name), place.scope, limit, (*path, place))

    def follow(self, statements: list[Statement], scope: str, limit: float, path: tuple[Any, ...]) -> None:
        for statement in reversed(statements):
            counts = statement is statements[-1]
            self.used[statement.key] = max(limit, self.used.get(statement.key, -1))
            within = limit if counts else min(limit, max(statement.order, statements[-1].order))
            for part in parts(statement.value):
                if isinstance(part, Reference):
                    if part.called and within == FOREVER:
                        self.called.setdefault(Place(part.scope or scope, part.name), statement)
                    self.visit(part, scope, within, path)
                elif isinstance(part, Macro) and part in path:
                    self.problems.append(f"macro %{part.name} ({statement.origin}) is defined by itself")
                elif isinstance(part, Macro):
                    if within == FOREVER and part.name not in self.macros:
                        self.macros.append(part.name)
                    self.follow(self.config.history[part.name], scope, within, (*path, part))

    def unused(self) -> Iterator[str]:
        for statement in self.config.last():
            if statement.order < self.used.get(statement.key, -1):
                continue
            where = f"({statement.origin})"
            if statement.parameter:
                reached = {binding_key(place, statement.parameter): None for place in self.places}
                close = nearest(statement.key, reached)
                yield f"nothing uses {statement.key} {where}: the run does not reach {statement.place.name}{close}"
            else:
                close = nearest(statement.key, self.macros)
                yield f"nothing uses the macro {statement.key} {where}{close}"

    def missing(self, root: str, supplied: Sequence[str]) -> dict[str, str]:
        """What must be bound and is not: key of the binding, and the sentence that says so."""
        needed = {Place("", root): COMMAND_LINE} | {place: statement.origin for place, statement in self.called.items()}
        found = {}
        for place, origin in needed.items():
            given = set(self.config.bound(place)) | (set(supplied) if place == Place("", root) else set())
            for name in self.config.required(place.name):
                if name not in given:
                    key = binding_key(place, name)
                    found[key] = f"{place.name} needs {name!r} ({origin}); add `{key} = ...`"
        return found


class Configured:
    """A configurable with its bindings: call it with what is left. Its references are built anew at each call."""

    def __init__(self, config: "Config", place: Place):
        self.config = config
        self.place = place

    def __repr__(self) -> str:
        return f"@{binding_key(self.place, '')}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.place.name
        given = {*self.config.signature(name).positional[: len(args)], *kwargs}
        bound = self.config.bound(self.place)
        for statement in [bound[other] for other in given if other in bound]:
            if statement.origin != DEFAULT:
                raise ValueError(f"{statement.key} ({statement.origin}) is set by the code that calls it; remove it")
        missing = [n for n in self.config.required(name) if n not in given and n not in bound]
        if missing:
            lines = ", ".join(f"`{binding_key(self.place, other)} = ...`" for other in missing)
            raise ValueError(f"{name} needs {', '.join(missing)}; add {lines}")
        built = {other: self.build(statement) for other, statement in bound.items() if other not in given}
        return self.config.table[name](*args, **built, **kwargs)

    def build_argument(self, parameter: str) -> Any:
        """One bound argument alone, as a call would build it."""
        return self.build(self.config.bound(self.place)[parameter])

    def build(self, statement: Statement) -> Any:
        def build_part(part: Any) -> Any:
            if not isinstance(part, Reference):
                return part
            configured = Configured(self.config, Place(part.scope or self.place.scope, part.name))
            if not part.called:
                return configured
            try:
                return configured()
            except ValueError as error:
                raise ValueError(
                    f"{statement.key} = {render(statement.value)} ({statement.origin}): {error}"
                ) from error

        literal = self.config.literal(statement.value)
        value = replaced(literal, build_part)
        parameter = self.config.signature(self.place.name).parameters.get(statement.parameter)
        if parameter is not None and value is not literal:
            checked = replaced(
                value, lambda part: self.config.table[part.place.name] if isinstance(part, Configured) else part
            )
            if not fits(checked, parameter.hint) and repr(value) != repr(parameter.default):
                shown = f"{statement.key} = {render(statement.value)} ({statement.origin})"
                raise ValueError(f"{shown}: {misfit(checked, parameter.hint)}")
        return value


# Writing


def render(value: Any) -> str:
    """The value as gin reads it."""
    if isinstance(value, Reference):
        return f"@{value.scope}/{value.name}{'()' * value.called}".replace("@/", "@")
    if isinstance(value, Macro):
        return f"%{value.name}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render(key)}: {render(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(render, value)) + "]"
    if isinstance(value, tuple):
        return (
            "(" + "".join(render(item) + ", " for item in value).rstrip(" ").removesuffix("," * (len(value) > 1)) + ")"
        )
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


def is_writable(value: Any) -> bool:
    def exact(part: Any) -> bool:
        return type(part) in (str, int, float, bool, type(None)) and part == part  # not NaN

    if type(value) in (list, tuple, dict):
        return all(is_writable(part) for part in ([*value, *value.values()] if isinstance(value, dict) else value))
    return exact(value)


def write(
    config: "Config", reach: Reach, header: str, imports: Mapping[str, str], supplied: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """The resolved config as text, with the origin of each value behind it, and these origins by key."""
    lines = [header] + [f"import {module}  # {origin}" for module, origin in imports.items()]
    origins = {}

    def put(key: str, value: Any, origin: str) -> None:
        lines.append(f"{key} = {render(value)}  # {origin}")
        origins[key] = origin

    if reach.macros:
        lines.append("")
    for name in reach.macros:
        statement = config.history[name][-1]
        put(name, statement.value, statement.origin)
    for place in reach.places:
        lines.append("")
        bound = config.bound(place)
        parameters = config.signature(place.name).parameters
        for name in [*parameters, *(extra for extra in bound if extra not in parameters)]:
            key = binding_key(place, name)
            if name in bound:
                put(key, bound[name].value, bound[name].origin)
            elif parameters[name].default is MISSING or (place == reach.places[0] and name in supplied):
                lines.append(f"# {key}: given by the code that calls it")
            elif is_writable(parameters[name].default):
                put(key, parameters[name].default, DEFAULT)
            else:
                lines.append(f"# {key}: {describe(parameters[name].default)} by default")
    return "\n".join(lines) + "\n", origins


def describe(value: Any) -> str:
    """A default that gin cannot write, the same in every process."""
    name = value.__qualname__ if hasattr(value, "__qualname__") else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", name).replace("\n", " ")
