"""What a configurable accepts: its parameters, their defaults and hints, and whether a value fits a hint."""

import inspect
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from beartype import BeartypeConf
from beartype.door import is_bearable

MISSING = inspect.Parameter.empty
NUMBERS_WIDEN = BeartypeConf(is_pep484_tower=True)  # PEP 484: an int is fine where a float is asked for


class Parameter(NamedTuple):
    default: Any  # MISSING if it must be given
    hint: Any  # MISSING if there is none, or if it cannot be resolved


class Signature(NamedTuple):
    parameters: dict[str, Parameter]  # in the order of the source
    positional: tuple[str, ...]  # those which a caller may give without a name
    takes_any_name: bool  # has **kwargs


def signature(configurable: Callable) -> Signature:
    """The parameters of a function, a class (its constructor) or a partial."""
    function = configurable
    if inspect.isclass(
        configurable
    ):  # not inspect.signature(class): a metaclass such as that of nnx hides the constructor
        has_init = configurable.__init__ is not object.__init__
        function = configurable.__init__ if has_init else configurable.__new__
        if function is object.__new__:
            return Signature({}, (), False)
    found = list(inspect.signature(function).parameters.values())
    if inspect.isclass(configurable):
        found = found[1:]  # self
    hints = resolved_hints(inspect.unwrap(function))
    named = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Signature(
        {p.name: Parameter(p.default, hints.get(p.name, MISSING)) for p in named},
        tuple(p.name for p in named if p.kind == p.POSITIONAL_OR_KEYWORD),
        any(p.kind == p.VAR_KEYWORD for p in found),
    )


def resolved_hints(function: Callable) -> dict[str, Any]:
    """The hints that can be resolved, each by itself: one forward reference must not hide the others."""
    annotations = inspect.get_annotations(function) if callable(function) else {}
    names = getattr(function, "__globals__", {})
    hints = {}
    for name, hint in annotations.items():
        try:
            hints |= typing.get_type_hints(
                types.SimpleNamespace(__annotations__={name: hint}), names, include_extras=True
            )
        except Exception:  # whatever a hint can raise: then the value is not checked
            continue
    return hints


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` has the type `hint`; every item of a container is looked at. A bool is no number."""
    if hint is MISSING:
        return True
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if isinstance(value, bool) and hint in (int, float, complex):
        return False
    if not bearable(value, hint):
        return False
    if isinstance(value, Mapping) and len(parts) == 2:
        return all(fits(key, parts[0]) and fits(item, parts[1]) for key, item in value.items())
    if origin is tuple and isinstance(value, tuple) and Ellipsis not in parts:
        return all(fits(item, part) for item, part in zip(value, parts, strict=False))
    if isinstance(value, list | tuple) and parts and isinstance(origin, type):
        return all(fits(item, parts[0]) for item in value)
    return True


def bearable(value: Any, hint: Any) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # beartype's opinion of somebody's hint is not the user's problem
            return is_bearable(value, hint, conf=NUMBERS_WIDEN)
    except Exception:  # a hint that beartype cannot read is not checked
        return True


def spell(hint: Any) -> str:
    """A hint as a person writes it: int, float | None, tuple[int, ...]."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(spell(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Annotated:
        return spell(typing.get_args(hint)[0]) + " in the range that its function states"
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")
