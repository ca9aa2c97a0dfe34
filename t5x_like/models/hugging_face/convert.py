"""Weights of a family to parameters of ours, and back, tensor by tensor.

Rules speak of layers by their number. Where a layer's parameters really are (unrolled, in a row of a scanned stack,
shared) a stack knows: `canonical` names are those of unrolled layers, and a `Place` says where each of them is.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from t5x_like.models.hugging_face.family import Family
from t5x_like.models.hugging_face.rules import Rule
from t5x_like.models.hugging_face.tensors import Tensors, matches_any
from t5x_like.models.parameters import merge, split
from t5x_like.models.stack import Stack

LISTED = 12  # names in an error


class Place(NamedTuple):
    """A parameter, or a row of it where layers are stacked; its shape without the row's dim."""

    path: str
    row: int | None
    shape: tuple[int, ...]


class Match(NamedTuple):
    """A rule for given numbers of layers and experts: canonical names of ours, names of theirs."""

    rule: Rule
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


def places(model: nnx.Module, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Place]:
    """Canonical name -> place, for every parameter of the model."""
    found, inside = {}, {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Stack):
            name = "/".join(map(str, path))
            for number, (prefix, row) in enumerate(module.locations()):
                inside.setdefault(f"{name}/{prefix}/", []).append((f"{name}/layers/{number}/", row))
    for path, leaf in shapes.items():
        prefix = next((prefix for prefix in inside if path.startswith(prefix)), None)
        if prefix is None:
            found[path] = Place(path, None, tuple(leaf.shape))
            continue
        for canonical, row in inside[prefix]:
            shape = tuple(leaf.shape if row is None else leaf.shape[1:])
            found[canonical + path.removeprefix(prefix)] = Place(path, row, shape)
            if row is None:
                break  # shared by all layers: told once
    return found


def match_all(family: Family, found: Mapping[str, Place]) -> list[Match]:
    """Every rule that the model has parameters for. Raises where a parameter has no rule."""
    matches, covered = [], set()
    for rule in family.rules:
        pattern = re.compile(re.escape(rule.ours[0]).replace(r"\{\}", r"(\d+)"))
        for name in found:
            if not (number := pattern.fullmatch(name)):
                continue
            layer = number.groups()
            ours = tuple(part.format(*layer) for part in rule.ours)
            if not set(ours) <= found.keys():
                continue
            theirs = tuple(
                part.format(*layer, e=expert)
                for part in rule.theirs
                for expert in (range(found[ours[0]].shape[0]) if "{e}" in part else [0])
            )
            matches.append(Match(rule, ours, theirs))
            covered |= set(ours)
    if missing := sorted(found.keys() - covered):
        raise ValueError(
            f"a {family.architecture} has no place for {len(missing)} parameters of this model: {listing(missing)}; "
            "choose the family that it is built like"
        )
    return matches


def listing(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def their_shapes(match: Match, found: Mapping[str, Place]) -> list[tuple[int, ...]]:
    """What their tensors have to be for this model."""
    zeros = [np.broadcast_to(np.float32(0), found[name].shape) for name in match.ours]
    return [array.shape for array in match.rule.back(zeros)]


def check(family: Family, matches: list[Match], found: Mapping[str, Place], tensors: Tensors) -> None:
    """Raises one error that lists every tensor that is missing, unknown or of another shape; reads no weight."""
    wanted = {
        name: shape for match in matches for name, shape in zip(match.theirs, their_shapes(match, found), strict=True)
    }
    there = tensors.names()
    missing = sorted(wanted.keys() - there)
    unknown = sorted(name for name in there - wanted.keys() if not matches_any(name, family.ignored))
    shapes = {name: (shape, tensors.shape(name)) for name, shape in wanted.items() if name in there}
    other = [f"{name} {list(theirs)}, wanted {list(ours)}" for name, (ours, theirs) in shapes.items() if ours != theirs]
    lines = [
        f"  {len(names)} {what}: {listing(names)}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", other))
        if names
    ]
    if lines:
        raise ValueError(f"{tensors.folder} does not hold this {family.architecture}:\n" + "\n".join(lines))


def import_params(
    family: Family, model: nnx.Module, target: Mapping[str, jax.ShapeDtypeStruct], tensors: Tensors
) -> dict[str, jax.Array]:
    """The parameters of `model` from a folder, each made where `target` places it.

    In memory are, besides what is made, the tensors of one rule.
    """
    found = places(model, target)
    matches = match_all(family, found)
    check(family, matches, found, tensors)
    by_name = {name: (match, index) for match in matches for index, name in enumerate(match.ours)}

    @functools.lru_cache(maxsize=1)
    def converted(match: Match) -> list[np.ndarray]:
        arrays = [tensors.read(name) for name in match.theirs]
        return match.rule.into(arrays, [found[name].shape for name in match.ours])

    def part(canonical: str) -> np.ndarray:
        match, index = by_name[canonical]
        return converted(match)[index]

    rows: dict[str, dict[int | None, str]] = {}
    for canonical, place in found.items():
        rows.setdefault(place.path, {})[place.row] = canonical
    return {path: place_array(leaf, rows[path], part) for path, leaf in target.items()}


def place_array(
    leaf: jax.ShapeDtypeStruct, rows: Mapping[int | None, str], part: Callable[[str], np.ndarray]
) -> jax.Array:
    """One parameter of parts: each device's piece is made by itself."""

    def piece(index: tuple[slice, ...]) -> np.ndarray:
        if None in rows:
            return np.asarray(part(rows[None])[index], leaf.dtype)
        numbers = range(leaf.shape[0])[index[0]]
        return np.stack([np.asarray(part(rows[number])[index[1:]], leaf.dtype) for number in numbers])

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, piece)


def export_tensors(
    family: Family, model: nnx.Module, params: Mapping[str, jax.Array], dtype: np.dtype
) -> tuple[dict[str, int], Iterator[tuple[str, np.ndarray]]]:
    """(bytes of each tensor by name, the tensors one after another)."""
    if (part := family.part(model)) is not model:
        whole = merge(split(model).graphdef, dict(params))
        model, params = part, split(family.part(whole)).params  # by their names in the part
    found = places(model, params)
    matches = match_all(family, found)
    shapes = {n: s for match in matches for n, s in zip(match.theirs, their_shapes(match, found), strict=True)}
    sizes = {name: int(np.prod(shape)) * np.dtype(dtype).itemsize for name, shape in shapes.items()}

    def value(name: str) -> np.ndarray:
        place = found[name]
        array = params[place.path]
        return np.asarray(array if place.row is None else array[place.row], np.float32)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for match in matches:
            arrays = match.rule.back([value(name) for name in match.ours])
            for name, array in zip(match.theirs, arrays, strict=True):
                yield name, np.array(array, dtype, order="C")

    return sizes, tensors()


def config_json(family: Family, model: nnx.Module, dtype: np.dtype) -> dict:
    return {
        "model_type": family.model_type,
        "architectures": [family.architecture],
        "dtype": str(np.dtype(dtype)),
        **family.config(family.part(model)),
    }


def gin_text(family: Family, config: Mapping[str, object], layer_loop: str) -> str:
    """A config of the imported model: its family's parts, and what config.json says of them."""
    bindings = family.bindings(config)
    roots = [name.removesuffix(".d_model") for name in bindings if name.endswith(".d_model")]
    bindings = {f"{root}.layer_loop": layer_loop for root in roots if layer_loop} | bindings
    lines = [f"include '{family.include}'", ""]
    for name, value in bindings.items():
        is_reference = isinstance(value, str) and value.startswith("@")
        lines.append(f"{name} = {value if is_reference else repr(value)}")
    return "\n".join(lines) + "\n"
