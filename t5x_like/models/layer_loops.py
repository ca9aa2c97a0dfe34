"""How the layers of a stack are made and run: one after the other, by a scan, or one layer again and again.

A stack names the kinds of its layers: those of the first layers, then a cycle that repeats (one kind for LLaMA; local,
local, ..., global for Gemma 3). Unrolled and scanned layers hold the same values, drawn with the same keys:

  unrolled   layers/0 ... layers/7
  scanned    layers/first/0, layers/cycle/0 and /1 (each with a leading axis "layers"), layers/rest/0
  shared     layers/0, for every layer (ALBERT, arXiv:1909.11942, section 3.1)
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx


class Beside(NamedTuple):
    """What all layers read besides their input: of each row (the first dim of every array), and of all rows alike."""

    of_rows: Any = None
    shared: Any = None


# step(block, x_BLD, one layer's input, beside) -> (x_BLD, one layer's output). Values that depend on parameters or on
# the batch come as arguments: whoever runs the layers may take some rows at a time, and gradients of each by itself.
Step = Callable[[nnx.Module, jax.Array, Any, Beside], tuple[jax.Array, Any]]
# make(rngs=) -> a layer
MakeLayer = Callable[..., nnx.Module]


class Kinds(NamedTuple):
    """What makes each layer of a stack."""

    first: Sequence[MakeLayer]
    cycle: Sequence[MakeLayer]
    num_layers: int

    def makers(self) -> list[MakeLayer]:
        later = self.num_layers - len(self.first)
        return [*self.first, *(self.cycle[i % len(self.cycle)] for i in range(later))]

    @property
    def num_cycles(self) -> int:
        return (self.num_layers - len(self.first)) // len(self.cycle)

    @property
    def first_of_rest(self) -> int:
        """Number of the first layer that stands after the last whole cycle."""
        return len(self.first) + self.num_cycles * len(self.cycle)


def kinds_of(first: Sequence[Callable], layers: Callable | Sequence[Callable], num_layers: int) -> Kinds:
    """Checks the numbers; one kind may be given without a list around it."""
    cycle = [layers] if callable(layers) else list(layers)
    if not cycle:
        raise ValueError("layers is empty: name at least one kind of layer")
    if num_layers < 1 or len(first) > num_layers:
        raise ValueError(f"num_layers {num_layers}: at least 1, and not fewer than the {len(first)} first_layers")
    return Kinds(list(first), cycle, num_layers)


class Location(NamedTuple):
    """Where the parameters of one layer are: below this name, and in this row of each, or None for all of it."""

    prefix: str
    row: int | tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class LayerLoop:
    """One way to hold and run layers."""

    create: Callable  # (Kinds, keys [X]) -> layers
    run: Callable  # (remat, step, layers, x_BLD, per_layer, beside) -> (x_BLD, outputs per layer)
    deal: Callable  # (Kinds, keys [X]) -> per_layer
    repeat: Callable  # (Kinds, tree) -> per_layer, with this tree for every layer
    locate: Callable  # (Kinds) -> a Location per layer


def create_unrolled(kinds: Kinds, keys: jax.Array) -> nnx.List:
    return nnx.List([make(rngs=nnx.Rngs(params=key)) for make, key in zip(kinds.makers(), keys, strict=True)])


def run_unrolled(
    remat: Callable,
    step: Step,
    layers: Sequence[nnx.Module],
    x_BLD: jax.Array,
    per_layer: Sequence,
    beside: Beside = Beside(),  # noqa: B008  frozen
):
    outputs = []
    for layer, one in zip(layers, per_layer, strict=True):
        x_BLD, output = remat(functools.partial(step, layer))(x_BLD, one, beside)
        outputs.append(output)
    return x_BLD, outputs


UNROLLED = LayerLoop(
    create_unrolled,
    run_unrolled,
    deal=lambda kinds, keys: list(keys),
    repeat=lambda kinds, tree: [tree] * kinds.num_layers,
    locate=lambda kinds: [Location(f"layers/{i}", None) for i in range(kinds.num_layers)],
)


class Parts(NamedTuple):
    """What belongs to the layers of a scanned stack: those before, in and after the scan. In `cycle`, stacked."""

    first: list
    cycle: list
    rest: list


def create_scanned(kinds: Kinds, keys: jax.Array) -> nnx.Dict:
    parts = deal_scanned(kinds, keys)
    before, after = Kinds(kinds.first, [], len(kinds.first)), kinds.cycle[: len(parts.rest)]
    return nnx.Dict(
        first=create_unrolled(before, parts.first),
        cycle=nnx.List([stacked(make, keys) for make, keys in zip(kinds.cycle, parts.cycle, strict=True) if len(keys)]),
        rest=create_unrolled(Kinds(after, [], len(after)), parts.rest),
    )


def stacked(make: MakeLayer, keys: jax.Array) -> nnx.Module:
    """One layer whose every parameter has a leading axis "layers"."""

    def values(key):
        return nnx.as_pure(nnx.state(make(rngs=nnx.Rngs(params=key)), nnx.Param))

    graphdef, state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=keys[0]))))
    for _, param in nnx.to_flat_state(state):
        param.set_metadata(axes=("layers", *param.get_metadata()["axes"]))
    layer = nnx.merge(graphdef, state)
    nnx.update(layer, jax.vmap(values)(keys))
    return layer


def run_scanned(
    remat: Callable,
    step: Step,
    layers: nnx.Dict,
    x_BLD: jax.Array,
    per_layer: Parts,
    beside: Beside = Beside(),  # noqa: B008  frozen
):
    x_BLD, first = run_unrolled(remat, step, layers["first"], x_BLD, per_layer.first, beside)
    cycle = []
    if layers["cycle"]:
        graphdefs, values = zip(*map(nnx.split, layers["cycle"]), strict=True)
        x_BLD, cycle = run_cycles(remat, step, graphdefs, values, x_BLD, per_layer.cycle, beside)
    x_BLD, rest = run_unrolled(remat, step, layers["rest"], x_BLD, per_layer.rest, beside)
    return x_BLD, Parts(first, cycle, rest)


def run_cycles(remat: Callable, step: Step, graphdefs, values, x_BLD: jax.Array, inputs: Sequence, beside: Beside):
    """A scan over the leading axis of `values`, which holds the parameters of as many cycles of layers."""

    def one_cycle(x_BLD, values_and_inputs):
        values, inputs = values_and_inputs
        blocks = [nnx.merge(graphdef, value) for graphdef, value in zip(graphdefs, values, strict=True)]
        return run_unrolled(remat, step, blocks, x_BLD, inputs, beside)

    return jax.lax.scan(one_cycle, x_BLD, (values, inputs))


def deal_scanned(kinds: Kinds, keys: jax.Array) -> Parts:
    begin, end = len(kinds.first), kinds.first_of_rest
    cycle = [keys[begin + place : end : len(kinds.cycle)] for place in range(len(kinds.cycle))]
    return Parts(list(keys[:begin]), cycle, list(keys[end:]))


def repeat_scanned(kinds: Kinds, tree: Any) -> Parts:
    """The trees of the scan are views of one array; those of an empty scan do not exist."""
    many = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (kinds.num_cycles, *x.shape)), tree)
    cycle = [many] * len(kinds.cycle) if kinds.num_cycles else []
    return Parts([tree] * len(kinds.first), cycle, [tree] * (kinds.num_layers - kinds.first_of_rest))


def locate_scanned(kinds: Kinds) -> list[Location]:
    first = [Location(f"layers/first/{i}", None) for i in range(len(kinds.first))]
    scanned = [
        Location(f"layers/cycle/{place}", row) for row in range(kinds.num_cycles) for place in range(len(kinds.cycle))
    ]
    rest = [Location(f"layers/rest/{i}", None) for i in range(kinds.num_layers - kinds.first_of_rest)]
    return [*first, *scanned, *rest]


SCANNED = LayerLoop(create_scanned, run_scanned, deal_scanned, repeat_scanned, locate_scanned)


def create_shared(kinds: Kinds, keys: jax.Array) -> nnx.List:
    if kinds.first or len(kinds.cycle) != 1:
        raise ValueError("shared layers are all one: give one kind in layers, and no first_layers")
    return nnx.List([kinds.cycle[0](rngs=nnx.Rngs(params=keys[0]))])


def run_shared(
    remat: Callable,
    step: Step,
    layers: nnx.List,
    x_BLD: jax.Array,
    per_layer: Sequence,
    beside: Beside = Beside(),  # noqa: B008  frozen
):
    return run_unrolled(remat, step, [layers[0]] * len(per_layer), x_BLD, per_layer, beside)


SHARED = dataclasses.replace(
    UNROLLED,
    create=create_shared,
    run=run_shared,
    locate=lambda kinds: [Location("layers/0", None)] * kinds.num_layers,
)

LAYER_LOOPS = {"unrolled": UNROLLED, "scanned": SCANNED, "shared": SHARED}


def layer_loop_named(name: str | LayerLoop) -> LayerLoop:
    """The loop of that name, or the one that is given."""
    if isinstance(name, LayerLoop):
        return name
    if name not in LAYER_LOOPS:
        nearest = difflib.get_close_matches(name, LAYER_LOOPS, n=1, cutoff=0.0)[0]
        raise ValueError(f"layer_loop {name!r} is not one of {', '.join(LAYER_LOOPS)}; nearest is {nearest!r}")
    return LAYER_LOOPS[name]


# Rematerialisation: remat(layer) -> layer, which says what of a layer's forward pass is kept for its backward pass.


def save_everything(layer: Callable) -> Callable:
    """Keeps all: fastest, most memory."""
    return layer


def save_nothing(layer: Callable) -> Callable:
    """Keeps only each layer's input, and runs the layer again in the backward pass."""
    return jax.checkpoint(layer)
