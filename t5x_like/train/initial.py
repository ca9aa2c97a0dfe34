"""Where the parameters of a new run come from: continued pretraining, larger vocabularies, new heads.

  train.initial = @FromCheckpoint()
  FromCheckpoint.folder = 'imported/checkpoints'
  FromCheckpoint.rename = {'^stack/': 'decoder/'}       a name here -> the name there
  FromCheckpoint.fresh = '^head/'                       begins by chance

Every parameter is accounted for: one that is neither there nor `fresh`, or has another shape, is listed in one error.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5x_like.train import checkpoints, run_folder

# (where each parameter will be, its value by chance) -> its first value
Initial = Callable[[Mapping[str, jax.ShapeDtypeStruct], Mapping[str, jax.Array]], dict[str, jax.Array]]


class Matched(NamedTuple):
    """Which parameters come from where. `taken` and `resized`: name here -> name there; `unused` are names there."""

    taken: dict[str, str]
    resized: dict[str, str]
    fresh: list[str]
    unused: list[str]

    def __str__(self) -> str:
        resized = "".join(f"; {name} gets further rows" for name in self.resized)
        unused = f"; {len(self.unused)} there are not used ({listing(self.unused)})" if self.unused else ""
        fresh = f"; {len(self.fresh)} begin by chance ({listing(self.fresh)})" if self.fresh else ""
        return f"{len(self.taken) + len(self.resized)} parameters come from the checkpoint{resized}{fresh}{unused}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromCheckpoint:
    """The parameters of a checkpoint of another run, or of an import.

    step     None: the newest that is sound
    rename   regular expressions for names here, and what to put in their place to get the names there
    fresh    regular expression: the names here that begin by chance
    resize   'no', or 'mean': a parameter that is longer here in one dim (a larger vocabulary) gets the mean of the rows
             there for each new row, so that a new token begins as no token in particular
    """

    folder: str
    step: int | None = None
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fresh: str | None = None
    resize: str = "no"

    def __post_init__(self):
        if self.resize not in ("no", "mean"):
            raise ValueError(f"resize {self.resize!r}: choose 'no' or 'mean'")
        for pattern in (*self.rename, self.fresh or ""):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error

    def chosen_step(self) -> int:
        folder = pathlib.Path(self.folder)
        if self.step is not None:
            return self.step
        newest = run_folder.newest_valid(folder).step
        if newest is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint: give `checkpoints` of a run or of an import")
        return newest

    def match(self, target: Mapping[str, jax.ShapeDtypeStruct]) -> Matched:
        """What would be taken; reads no array. Raises one error that lists all that does not fit."""
        step = self.chosen_step()
        saved = checkpoints.saved_arrays(self.folder, step)
        saved = {name.removeprefix("params/"): leaf for name, leaf in saved.items() if name.startswith("params/")}
        matched, missing, other = Matched({}, {}, [], []), [], []
        for name, leaf in target.items():
            source = self.name_there(name)
            if self.fresh is not None and re.search(self.fresh, name):
                matched.fresh.append(name)
            elif source not in saved:
                missing.append(source + checkpoints.nearest(source, list(saved)))
            elif saved[source].shape == leaf.shape:
                matched.taken[name] = source
            elif self.resize == "mean" and grows_in_one_dim(saved[source].shape, leaf.shape) is not None:
                matched.resized[name] = source
            else:
                other.append(f"{name} {list(leaf.shape)} here, {list(saved[source].shape)} there")
        matched.unused.extend(sorted(saved.keys() - {*matched.taken.values(), *matched.resized.values()}))
        if missing or other:
            lines = ["", *(f"  missing: {name}" for name in missing), *(f"  of another shape: {x}" for x in other)]
            raise ValueError(
                f"checkpoint {step} in {self.folder} does not fit the model: {len(missing)} parameters missing, "
                f"{len(other)} of another shape; rename them, or let them begin by chance with `fresh`\n"
                + "\n".join(lines)
            )
        return matched

    def name_there(self, name: str) -> str:
        for pattern, replacement in self.rename.items():
            name = re.sub(pattern, replacement, name)
        return name

    def __call__(
        self, target: Mapping[str, jax.ShapeDtypeStruct], by_chance: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        step, matched = self.chosen_step(), self.match(target)
        saved = checkpoints.saved_arrays(self.folder, step)
        wanted = {source: target[name] for name, source in matched.taken.items()}
        wanted |= {source: saved[f"params/{source}"] for source in matched.resized.values()}
        read = checkpoints.read_params(self.folder, step, wanted)
        params = dict(by_chance)
        for name, source in matched.taken.items():
            params[name] = read[source].astype(target[name].dtype)
        for name, source in matched.resized.items():
            params[name] = jax.device_put(grown(read[source], target[name].shape), target[name].sharding)
        return params


def grows_in_one_dim(shape: tuple[int, ...], wanted: tuple[int, ...]) -> int | None:
    """The only dim in which `wanted` is longer, or None."""
    if len(shape) != len(wanted):
        return None
    longer = [dim for dim, (old, new) in enumerate(zip(shape, wanted, strict=True)) if old != new]
    return longer[0] if len(longer) == 1 and wanted[longer[0]] > shape[longer[0]] else None


def grown(array: jax.Array, wanted: tuple[int, ...]) -> jax.Array:
    """`array` with the mean of its rows for each row that `wanted` has more."""
    dim = grows_in_one_dim(array.shape, wanted)
    mean = array.mean(axis=dim, keepdims=True)
    more = jnp.repeat(mean, wanted[dim] - array.shape[dim], axis=dim)
    return jnp.concatenate([array, more], axis=dim)


def listing(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
