"""Layers in stages: each device holds some of them, and micro-batches travel from one to the next.

GPipe (arXiv:1811.06965), here of 4 stages and 4 micro-batches; the places without a number are the bubble:

  tick       0  1  2  3  4  5  6
  stage 0    0  1  2  3
  stage 1       0  1  2  3
  stage 2          0  1  2  3
  stage 3             0  1  2  3

With `num_rounds` above 1 (arXiv:2104.04473, section 2.2) a device holds several pieces of the stack, one of each round:
device 1 of 4, in 2 rounds over 8 layers, has layers 1 and 5. A micro-batch goes round as often, in groups of as many
as there are stages, so the bubble costs num_stages - 1 ticks of so much shorter a piece.

All stages are one `vmap` whose mapped dimension lies over the mesh axis "stage", and a tick's results move on by one
place of it, which the compiler makes a permutation of devices. Everything else of a layer is placed as ever, and the
gradient is the compiler's own: it keeps what every tick left, so its memory grows with the number of micro-batches.
`one_forward_one_backward` is the schedule that does not.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from t5x_like.models import layer_loops
from t5x_like.models.layer_loops import Beside, Kinds, LayerLoop, Location, Parts, Step
from t5x_like.models.stack import Stack

AXIS = "stage"


def pipelined(*, num_microbatches: int, num_rounds: int = 1) -> LayerLoop:
    """The layer loop of a mesh with stages; on any other mesh it is the scanned one, with the same parameters.

    num_microbatches   into which a forward pass cuts its rows; 4 times the stages keep the bubble below a fifth
    num_rounds         times that a micro-batch visits every device; the parameters get a leading axis of that size
    """
    for name, number in (("num_microbatches", num_microbatches), ("num_rounds", num_rounds)):
        if number < 1:
            raise ValueError(f"{name} {number} must be at least 1")
    return LayerLoop(
        functools.partial(create, num_rounds),
        RunInStages(num_microbatches, num_rounds),
        layer_loops.deal_scanned,
        layer_loops.repeat_scanned,
        functools.partial(locate, num_rounds),
    )


def num_stages() -> int:
    """Of the mesh that this is traced for."""
    return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def create(num_rounds: int, kinds: Kinds, keys: jax.Array) -> nnx.Dict:
    """As a scanned stack; in several rounds, every parameter [X, ...] is cut into [rounds, X / rounds, ...]."""
    cycle = len(kinds.cycle)
    if kinds.first or kinds.num_layers % (cycle * num_rounds):
        raise ValueError(
            f"num_layers {kinds.num_layers}: pipelined layers have no first_layers (here {len(kinds.first)}) and are "
            f"whole cycles of {cycle} in each of {num_rounds} round(s)"
        )
    layers = layer_loops.create_scanned(kinds, keys)
    if num_rounds > 1:
        layers["cycle"] = nnx.List([cut_in_rounds(num_rounds, block) for block in layers["cycle"]])
    return layers


def cut_in_rounds(num_rounds: int, block: nnx.Module) -> nnx.Module:
    graphdef, state = nnx.split(block)
    for _, param in nnx.to_flat_state(state):
        param.set_value(in_rounds(param.get_value(), num_rounds))
        param.set_metadata(axes=(None, *param.get_metadata()["axes"]))
    return nnx.merge(graphdef, state)


def in_rounds(x: jax.Array, num_rounds: int) -> jax.Array:
    return x.reshape(num_rounds, -1, *x.shape[1:])


def locate(num_rounds: int, kinds: Kinds) -> list[Location]:
    found = layer_loops.locate_scanned(kinds)
    if num_rounds == 1:
        return found
    return [Location(prefix, divmod(row, kinds.num_cycles // num_rounds)) for prefix, row in found]


@dataclasses.dataclass(frozen=True)
class RunInStages:
    """As `layer_loops.run_scanned`; a layer's outputs are added up over micro-batches, as terms of a loss may be."""

    num_microbatches: int
    num_rounds: int

    def __call__(
        self,
        remat: Callable,
        step: Step,
        layers: nnx.Dict,
        x_BLD: jax.Array,
        per_layer: Parts,
        beside: Beside = Beside(),  # noqa: B008  frozen
    ):
        cut = self.cut_for(num_stages(), x_BLD.shape[0], layers)
        graphdefs, values = zip(*map(nnx.split, layers["cycle"]), strict=True)
        leading = 1 if self.num_rounds == 1 else 2
        if cut.num_stages == 1:
            values = jax.tree.map(lambda x: x.reshape(-1, *x.shape[leading:]), values)
            x_BLD, outputs = layer_loops.run_cycles(remat, step, graphdefs, values, x_BLD, per_layer.cycle, beside)
            return x_BLD, Parts([], outputs, [])

        def stage(values, inputs, x_and_rows, turn):
            x_BLD, of_rows = x_and_rows
            values, inputs = jax.tree.map(lambda x: x[turn.number], (values, inputs))
            inputs = keys_of(inputs, turn.microbatch)
            given = Beside(of_rows, beside.shared)
            x_BLD, outputs = layer_loops.run_cycles(remat, step, graphdefs, values, x_BLD, inputs, given)
            return x_BLD, jax.tree.map(lambda x: jnp.where(turn.is_real, x, 0), outputs)

        values = jax.tree.map(lambda x: cut.by_stage(x, leading), values)
        inputs = jax.tree.map(cut.by_stage, per_layer.cycle)
        entering = jax.tree.map(cut.microbatches_of, (x_BLD, beside.of_rows))
        all_stages = jax.vmap(stage, in_axes=(1, 1, 0, 0), spmd_axis_name=AXIS)

        shift = to_next if cut.num_rounds == 1 else around

        def tick(at_stage, now):
            turns = cut.turns(now)
            is_new_S = (jnp.arange(cut.num_stages) == 0) & (turns.number == 0)
            at_stage = moved_on(at_stage, jax.tree.map(lambda x: x[turns.microbatch[0]], entering), is_new_S, shift)
            x_SBLD, outputs = all_stages(values, inputs, at_stage, turns)
            return on_stages((x_SBLD, at_stage[1])), (x_SBLD, outputs)

        empty = jax.tree.map(lambda x: jnp.zeros((cut.num_stages, *x.shape[1:]), x.dtype), entering)
        _, (x_TSBLD, outputs) = jax.lax.scan(tick, on_stages(empty), jnp.arange(cut.num_ticks))
        x_BLD = cut.rows_of(x_TSBLD[:, -1][cut.last_ticks])
        return x_BLD, Parts([], jax.tree.map(lambda x: x.sum(axis=0), outputs), [])

    def cut_for(self, num_stages: int, batch_size: int, layers: nnx.Dict) -> "Cut":
        M, R = self.num_microbatches, self.num_rounds
        param = jax.tree.leaves(nnx.state(layers["cycle"][0], nnx.Param))[0]
        num_cycles = param.shape[0] if R == 1 else R * param.shape[1]
        if num_stages > 1 and num_cycles % (num_stages * R):
            raise ValueError(
                f"{num_cycles} cycles of layers do not divide over {num_stages} stages in {R} round(s): make "
                f"num_layers a multiple of {num_stages * R} cycles, or the mesh axis stage smaller"
            )
        if num_stages > 1 and batch_size % M:
            raise ValueError(
                f"{batch_size} rows do not divide into the pipeline's {M} micro-batches: make them a multiple of {M}"
            )
        if num_stages > 1 and R > 1 and M % num_stages:
            raise ValueError(
                f"num_microbatches {M} is not a multiple of the {num_stages} stages, as {R} rounds need; they go round "
                f"in groups of {num_stages}"
            )
        return Cut(num_stages, M, R)


class Turns(NamedTuple):
    """What each stage does in a tick [S]: whether it is real or a place of the bubble; which round and micro-batch."""

    is_real: jax.Array
    number: jax.Array
    microbatch: jax.Array


class Cut(NamedTuple):
    """How rows and layers are dealt to a pipeline. Layer (r, s, i): round r of stage s, and i within it."""

    num_stages: int
    num_microbatches: int
    num_rounds: int

    @property
    def num_ticks(self) -> int:
        return self.num_microbatches * self.num_rounds + self.num_stages - 1

    @property
    def last_ticks(self) -> np.ndarray:
        """In which tick each micro-batch leaves the last stage for good."""
        group, place = np.divmod(np.arange(self.num_microbatches), self.num_stages)
        return (group * self.num_rounds + self.num_rounds - 1) * self.num_stages + place + self.num_stages - 1

    def turns(self, now: jax.Array) -> Turns:
        """A stage does what the one before it did a tick ago. Groups of S micro-batches go round, one by one."""
        done_S = now - jnp.arange(self.num_stages)
        is_real = (done_S >= 0) & (done_S < self.num_microbatches * self.num_rounds)
        done_S = jnp.clip(done_S, 0, self.num_microbatches * self.num_rounds - 1)
        group, number = done_S // (self.num_stages * self.num_rounds), done_S // self.num_stages % self.num_rounds
        return Turns(is_real, number, group * self.num_stages + done_S % self.num_stages)

    def by_stage(self, x: jax.Array, num_leading: int = 1) -> jax.Array:
        """[X, ...], or of two leading dims [R, X / R, ...], to [R, S, X / (R S), ...]."""
        return x.reshape(self.num_rounds, self.num_stages, -1, *x.shape[num_leading:])

    def microbatches_of(self, x: jax.Array) -> jax.Array:
        """[B, ...] -> [M, B / M, ...]: micro-batch i holds every M-th row, so that every device keeps its own rows."""
        return x.reshape(-1, self.num_microbatches, *x.shape[1:]).swapaxes(0, 1)

    def rows_of(self, x: jax.Array) -> jax.Array:
        """[M, B / M, ...] -> [B, ...], the other way."""
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def keys_of(keys: Any, microbatch: jax.Array) -> Any:
    """Each layer's dropout key for a micro-batch [X]; nothing where there is no dropout."""
    return jax.tree.map(jax.vmap(lambda key: jax.random.fold_in(key, microbatch)), keys)


def moved_on(at_stage: Any, entering: Any, is_new_S: jax.Array, shift: Callable) -> Any:
    """What each stage reads [S, ...]: what its neighbour wrote, and in the stages that are told, what enters."""

    def move(old, new):
        return jnp.where(is_new_S.reshape(-1, *[1] * new.ndim), new[None], shift(old))

    return jax.tree.map(move, at_stage, entering)


def to_next(x: jax.Array) -> jax.Array:
    """[S, ...] one stage further; the first gets zeros, so that nothing is sent around."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(1, -1, 0), *[(0, 0, 0)] * (x.ndim - 1)])


def to_previous(x: jax.Array) -> jax.Array:
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(-1, 1, 0), *[(0, 0, 0)] * (x.ndim - 1)])


def around(x: jax.Array) -> jax.Array:
    """[S, ...] one stage further, from the last to the first."""
    return jnp.roll(x, 1, axis=0)


def on_stages(tree: Any) -> Any:
    """The first dim over the stages, the others wherever they are."""
    free = P.UNCONSTRAINED
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, P(AXIS, *[free] * (x.ndim - 1))), tree)


def check_stages(model: nnx.Module, mesh: Mesh) -> None:
    """Raises where a mesh has stages and layers of the model do not run in them."""
    if mesh.shape[AXIS] == 1:
        return
    stacks = [(path, part) for path, part in nnx.iter_modules(model) if isinstance(part, Stack)]
    whole = ["/".join(map(str, path)) for path, part in stacks if not isinstance(part.loop.run, RunInStages)]
    if whole or not stacks:
        name = type(model).__name__
        raise ValueError(
            f"mesh stage={mesh.shape[AXIS]}: {name} does not run {whole[0] if whole else 'its layers'} in stages; set "
            f"{name}.layer_loop = @pipelined(), or the mesh axis stage to 1"
        )
