"""The 1F1B schedule (PipeDream-Flush, arXiv:2104.04473, section 2.2.1): a micro-batch goes back as soon as it can.

Of 3 stages and 4 micro-batches; in every tick a stage does one forward and one backward piece:

  tick       0     1     2     3     4     5     6     7
  stage 0    0     1     2     3  .    0'    1'    2'    3'
  stage 1          0     1  .  2 0'  3 1'    2'    3'
  stage 2                0 0'  1 1'  2 2'  3 3'

A stage keeps the inputs of the micro-batches that are on their way, at most 2 * num_stages - 1 however many a step has,
and runs its layers again in the backward piece. GPipe (`pipelined` alone) keeps something of every tick.

The model is cut open where its stack runs its layers (`Stack.loop`): what comes before and behind it, the loss too, is
the model's and the loss's own code, called for one micro-batch at a time.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models import layer_loops
from t5x_like.models.layer_loops import Beside
from t5x_like.models.parameters import merge
from t5x_like.models.stack import Stack, sum_terms
from t5x_like.partitioning.stages import AXIS, RunInStages, moved_on, num_stages, on_stages, to_next, to_previous
from t5x_like.train.step import Found, Loss, accumulated, shares_of, total_weights

Params = dict[str, jax.Array]


class Call(NamedTuple):
    """What the loop of the stack was called with."""

    remat: Callable
    step: Callable
    layers: nnx.Dict
    x_BLD: jax.Array
    keys: Any  # of dropout, by layer
    beside: Beside


class Opened(NamedTuple):
    """A model and its loss, cut open at the stack. `around` are the parameters outside the layers, `inside` theirs."""

    graphdef: nnx.GraphDef
    loss: Loss
    path: tuple
    around: Params
    inside: Params

    def run(self, params: Params, microbatch: Features, key: jax.Array, loop: Callable) -> dict[str, Term]:
        """The terms of the loss, with `loop` in the place of the stack's own."""
        model = merge(self.graphdef, params)
        stack = stack_at(model, self.path)
        stack.loop = dataclasses.replace(stack.loop, run=loop)
        return self.loss(model, microbatch, key)

    def in_order(self, params: Params, microbatch: Features, key: jax.Array) -> dict[str, Term]:
        return self.run(params, microbatch, key, layer_loops.run_scanned)

    def enter(self, around: Params, microbatch: Features, key: jax.Array) -> Call:
        """What goes into the layers; of what comes behind them the compiler keeps nothing."""
        calls = []

        def loop(remat, step, layers, x_BLD, per_layer, beside):
            calls.append(Call(remat, step, layers, x_BLD, per_layer.cycle, beside))
            return x_BLD, []

        self.run(around | self.inside, microbatch, key, loop)
        return calls[0]

    def leave(self, around: Params, microbatch: Features, key: jax.Array, x_BLD: jax.Array) -> dict[str, Term]:
        """The terms of the loss, without those of the layers, where the layers give `x_BLD`."""
        return self.run(around | self.inside, microbatch, key, lambda *_: (x_BLD, []))

    def values(self, inside: Params) -> tuple:
        """The layers' parameters by stage [S, X / S, ...]."""
        layers = stack_at(merge(self.graphdef, self.around | inside), self.path).layers
        values = [nnx.split(block)[1] for block in layers["cycle"]]
        return jax.tree.map(lambda x: x.reshape(num_stages(), -1, *x.shape[1:]), values)


def opened(graphdef: nnx.GraphDef, loss: Loss, params: Params) -> Opened:
    model = merge(graphdef, params)
    stacks = [(path, part) for path, part in nnx.iter_modules(model) if isinstance(part, Stack)]
    name = type(model).__name__
    if len(stacks) != 1:
        raise ValueError(
            f"one_forward_one_backward runs the layers of one stack and {name} has {len(stacks)}; set train.gradients "
            "= @one_forward_one_backward_of_two for an encoder-decoder, else leave it as it is (GPipe's schedule)"
        )
    path, stack = stacks[0]
    if not isinstance(stack.loop.run, RunInStages) or stack.loop.run.num_rounds != 1:
        raise ValueError(f"one_forward_one_backward asks for {name}.layer_loop = @pipelined() with num_rounds 1")
    prefix = "/".join([*map(str, path), "layers/"])
    inside = {name: value for name, value in params.items() if name.startswith(prefix)}
    return Opened(graphdef, loss, path, {n: v for n, v in params.items() if n not in inside}, inside)


def stack_at(model: nnx.Module, path: tuple) -> Stack:
    for part in path:
        model = model[part] if isinstance(part, int) else getattr(model, part)
    return model


def one_forward_one_backward(
    graphdef: nnx.GraphDef, loss: Loss, params: Params, microbatches: Features, keys: jax.Array, scale: jax.Array
) -> Found:
    """The same numbers as `accumulated`, for a stack whose layer loop is `pipelined`, on a mesh with stages."""
    if num_stages() == 1:
        return accumulated(graphdef, loss, params, microbatches, keys, scale)
    cut = opened(graphdef, loss, params)
    weights = total_weights(cut.in_order, params, microbatches, keys)
    pipe = Pipe(cut, microbatches, keys, scale, weights, *static_parts(cut, microbatches, keys))
    return run_ticks(
        pipe,
        cut,
        weights,
        num_microbatches=len(keys),
        values_of=cut.values,
        shared_of=lambda around: pipe.enter(around, 0).beside.shared,
        num_ticks=len(keys) + 2 * num_stages() - 2,
    )


def run_ticks(
    pipe, cut, weights: dict, *, num_microbatches: int, num_ticks: int, values_of: Callable, shared_of: Callable
) -> Found:
    """Every tick of a schedule, from the first micro-batch in to the last gradient out.

    pipe        what a tick does: start(values, shared), tick(total, now, values, shared, beside), rows_and_keys(number)
    values_of   of the parameters inside the layers, those by stage; shared_of: of the others, what all layers share
    """
    values = values_of(cut.inside)
    in_float32 = {name: jax.ShapeDtypeStruct(value.shape, jnp.float32) for name, value in cut.inside.items()}
    to_inside = jax.linear_transpose(values_of, in_float32)
    shared, to_around = jax.vjp(shared_of, cut.around)
    beside = jax.lax.map(pipe.rows_and_keys, jnp.arange(num_microbatches))

    def tick(total, now):
        return pipe.tick(total, now, values, shared, beside), None

    total, _ = jax.lax.scan(tick, pipe.start(values, shared), jnp.arange(num_ticks))
    around = jax.tree.map(jnp.add, total.around, *to_around(total.shared))
    return Found(around | to_inside(total.values)[0], total.shares, weights)


def static_parts(cut: Opened, microbatches: Features, keys: jax.Array) -> tuple[Callable, Callable, list]:
    """remat, step and the code of the layers: what a call of the loop has besides arrays."""
    calls = []
    first = jax.tree.map(lambda x: x[0], (microbatches, keys))
    jax.eval_shape(lambda given: calls.append(cut.enter(cut.around, *given)), first)
    return calls[0].remat, calls[0].step, [nnx.split(block)[0] for block in calls[0].layers["cycle"]]


class Total(NamedTuple):
    """What goes from tick to tick: what stages just wrote [S, B, L, D], inputs kept [S, slots, B, L, D], and sums."""

    forward: jax.Array
    backward: jax.Array
    kept: jax.Array
    values: Any
    shared: Any
    around: Params
    shares: dict[str, jax.Array]


class Pipe(NamedTuple):
    cut: Opened
    microbatches: Features
    keys: jax.Array
    scale: jax.Array
    weights: dict[str, jax.Array]
    remat: Callable
    step: Callable
    graphdefs: list

    def of_microbatch(self, tree: Any, number: jax.Array | int) -> Any:
        """Of arrays [n, ...]; in the bubble, that of another one."""
        number = jnp.clip(number, 0, len(self.keys) - 1)
        return jax.tree.map(lambda x: x[number], tree)

    def is_real(self, number: jax.Array) -> jax.Array:
        return (number >= 0) & (number < len(self.keys))

    def enter(self, around: Params, number: jax.Array | int) -> Call:
        return self.cut.enter(around, *self.of_microbatch((self.microbatches, self.keys), number))

    def rows_and_keys(self, number: jax.Array) -> tuple[Any, Any]:
        call = self.enter(self.cut.around, number)
        return call.beside.of_rows, jax.tree.map(lambda x: x.reshape(num_stages(), -1, *x.shape[1:]), call.keys)

    def at_stages(self, beside: tuple[Any, Any], number_S: jax.Array) -> tuple[Any, Any]:
        """What stands beside the micro-batch that each stage takes, and the dropout keys of its own layers."""
        rows, keys = self.of_microbatch(beside, number_S)
        return rows, jax.tree.map(lambda x: x[jnp.arange(num_stages()), jnp.arange(num_stages())], keys)

    def start(self, values: Any, shared: Any) -> Total:
        S = num_stages()
        x = jax.eval_shape(lambda: self.enter(self.cut.around, 0).x_BLD)
        at_stage, kept = (on_stages(jnp.zeros((*dims, *x.shape), x.dtype)) for dims in ((S,), (S, 2 * S - 1)))
        sums = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (values, self.cut.around, self.weights))
        return Total(at_stage, at_stage, kept, sums[0], jax.tree.map(jnp.zeros_like, shared), *sums[1:])

    def tick(self, total: Total, now: jax.Array, values: Any, shared: Any, beside: Any) -> Total:
        """A piece forward, the loss of the micro-batch that leaves the last stage, and a piece backward."""
        stages, last = jnp.arange(num_stages()), num_stages() - 1
        ahead, back = now - stages, now - 2 * last + stages  # the micro-batches that the stages take [S]
        x_SBLD = on_stages(moved_on(total.forward, self.enter(self.cut.around, now).x_BLD, stages == 0, to_next))
        kept = jax.vmap(keep)(total.kept, x_SBLD, ahead, self.is_real(ahead))
        forward = jax.vmap(self.forward, in_axes=(0, 0, None, 0, 0), spmd_axis_name=AXIS)
        y_SBLD, terms = forward(values, x_SBLD, shared, self.at_stages(beside, ahead), self.is_real(ahead))
        shares, around, dy_BLD = self.where_real(now - last, self.loss_of, y_SBLD[last])
        dy_SBLD = on_stages(moved_on(total.backward, dy_BLD, stages == last, to_previous))
        old_SBLD = jax.vmap(lambda kept, number: kept[number % kept.shape[0]])(kept, back)
        backward = jax.vmap(self.backward, in_axes=(0, 0, None, 0, 0, 0), spmd_axis_name=AXIS)
        given = self.at_stages(beside, back), self.is_real(back), dy_SBLD
        dvalues, dx_SBLD, dshared = backward(values, old_SBLD, shared, *given)
        embedding = self.where_real(now - 2 * last, self.gradient_of_entry, dx_SBLD[0])
        new = (
            dvalues,
            jax.tree.map(lambda x: x.sum(axis=0), dshared),
            jax.tree.map(jnp.add, around, embedding),
            shares | shares_of(sum_terms(terms), self.weights),
        )
        return Total(on_stages(y_SBLD), on_stages(dx_SBLD), on_stages(kept), *jax.tree.map(jnp.add, total[3:], new))

    def where_real(self, number: jax.Array, function: Callable, x: jax.Array) -> Any:
        """function(number, x), or zeros in the bubble, without computing it."""
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, number, x))
        return jax.lax.cond(self.is_real(number), lambda: function(number, x), lambda: nothing)

    def layers(self, values: Any, x_BLD: jax.Array, shared: Any, beside: tuple[Any, Any]) -> tuple[jax.Array, Any]:
        rows, keys = beside
        given = Beside(rows, shared)
        return layer_loops.run_cycles(self.remat, self.step, self.graphdefs, values, x_BLD, keys, given)

    def forward(self, values: Any, x_BLD: jax.Array, shared: Any, beside: tuple, is_real: jax.Array):
        x_BLD, terms = self.layers(values, x_BLD, shared, beside)
        return x_BLD, jax.tree.map(lambda x: jnp.where(is_real, x, 0), terms)

    def backward(
        self, values: Any, x_BLD: jax.Array, shared: Any, beside: tuple, is_real: jax.Array, dy_BLD: jax.Array
    ):
        """The gradients of a stage's parameters, input and what all stages share."""
        (_, terms), pull = jax.vjp(lambda *given: self.layers(*given, beside), values, x_BLD, shared)
        gradients = pull((dy_BLD, jax.tree.map(self.slopes, terms, is_leaf=lambda node: isinstance(node, dict))))
        return jax.tree.map(lambda x: jnp.where(is_real, x, 0), gradients)

    def slopes(self, terms: dict[str, Term]) -> dict[str, Term]:
        """The gradient of the loss by the layers' own terms: they enter it as they are."""
        one = {name: self.scale / jnp.where(self.weights[name] > 0, self.weights[name], 1.0) for name in terms}
        return {
            name: Term(jnp.full_like(term.sum, one[name]), jnp.zeros_like(term.weight)) for name, term in terms.items()
        }

    def loss_of(self, number: jax.Array, x_BLD: jax.Array) -> tuple[dict[str, jax.Array], Params, jax.Array]:
        """The shares of the loss's own terms, and the gradients of the parameters around and of the layers' output."""

        def scaled(around, x_BLD):
            given = self.of_microbatch((self.microbatches, self.keys), number)
            shares = shares_of(self.cut.leave(around, *given, x_BLD), self.weights)
            return sum(shares.values()) * self.scale, shares

        (_, shares), gradients = jax.value_and_grad(scaled, argnums=(0, 1), has_aux=True)(self.cut.around, x_BLD)
        return shares, *gradients

    def gradient_of_entry(self, number: jax.Array, dx_BLD: jax.Array) -> Params:
        _, pull = jax.vjp(lambda around: self.enter(around, number).x_BLD, self.cut.around)
        return pull(dx_BLD)[0]


def keep(kept: jax.Array, x: jax.Array, number: jax.Array, is_real: jax.Array) -> jax.Array:
    """`kept` [slots, ...] with the input of this micro-batch in its place."""
    place = number % kept.shape[0]
    return kept.at[place].set(jnp.where(is_real, x, kept[place]))
