"""A model as a flat dict of parameters, and back.

  decoder/layers/0/attention/query   f32[512, 8, 64]   ("embed", "heads", "head_dim")    unrolled
  decoder/layers/attention/query     f32[12, 512, 8, 64]   ("layers", "embed", "heads", "head_dim")    scanned

Optimizer, checkpoint and sharding see only this dict. To know shapes and axes without making the values:

  graphdef, shapes, axes = split(nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=key))))
"""

from typing import NamedTuple

import jax
from flax import nnx


class Split(NamedTuple):
    """A model taken apart: its code, its values, and the logical axis names of each value."""

    graphdef: nnx.GraphDef
    params: dict[str, jax.Array]
    axes: dict[str, tuple[str | None, ...]]


def split(model: nnx.Module) -> Split:
    """Takes a model apart; values may be arrays, tracers or, under `nnx.eval_shape`, shapes."""
    graphdef, state = nnx.split(model, nnx.Param)
    params, axes = {}, {}
    for path, param in nnx.to_flat_state(state):
        name = "/".join(str(part) for part in path)
        params[name] = param.get_value()
        axes[name] = param.get_metadata()["axes"]
    return Split(graphdef, params, axes)


def merge(graphdef: nnx.GraphDef, params: dict[str, jax.Array]) -> nnx.Module:
    """The model with these values. Call it inside jit: a merged model is for one trace."""
    paths = ((tuple(int(part) if part.isdigit() else part for part in name.split("/")), name) for name in params)
    return nnx.merge(graphdef, nnx.from_flat_state((path, params[name]) for path, name in paths))
