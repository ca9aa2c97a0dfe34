"""1F1B for an encoder-decoder: every device has a stage of either stack, and a micro-batch goes through four passes.

Of 2 stages and 3 micro-batches; e and d are pieces of the encoder and of the decoder, e' and d' those backward:

  tick       0     1      2        3          4            5            6         7
  stage 0    e0    e1     e2 d0    d1         d2 d0'       d1' e0'      d2' e1'   e2'
  stage 1          e0     e1       e2 d0 d0'  d1 d1' e0'   d2 d2' e1'   e2'

In every tick a stage has a piece of all four; those that are missing are the bubble, and M micro-batches take
M + 4 * num_stages - 3 ticks. A stage keeps the inputs of the micro-batches that are on their way, at most
4 * num_stages - 2 of its encoder layers and 2 * num_stages - 1 of its decoder layers, however many a step has, and runs
its layers again in the backward piece. What the decoder's layers ask of the encoder's output goes from stage to stage
with their own gradient.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models import layer_loops
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.parameters import merge
from t5x_like.models.stack import sum_terms
from t5x_like.partitioning.stages import AXIS, RunInStages, moved_on, num_stages, on_stages, to_next, to_previous
from t5x_like.train.one_forward_one_backward import Call, Opened, Params, Pipe, keep, run_ticks
from t5x_like.train.step import Found, Loss, accumulated, shares_of, total_weights


class Halves(NamedTuple):
    """An encoder-decoder and its loss, cut open at both stacks; `around` are the parameters outside the layers."""

    graphdef: nnx.GraphDef
    loss: Loss
    around: Params
    inside: Params

    def run(
        self, params: Params, microbatch: Features, key: jax.Array, encoder_loop: Callable, decoder_loop: Callable
    ) -> dict[str, Term]:
        """The terms of the loss, with other loops in the place of the stacks' own."""
        model = merge(self.graphdef, params)
        for stack, loop in ((model.encoder, encoder_loop), (model.decoder, decoder_loop)):
            stack.loop = dataclasses.replace(stack.loop, run=loop)
        return self.loss(model, microbatch, key)

    def in_order(self, params: Params, microbatch: Features, key: jax.Array) -> dict[str, Term]:
        return self.run(params, microbatch, key, layer_loops.run_scanned, layer_loops.run_scanned)

    def calls(self, around: Params, microbatch: Features, key: jax.Array, y_BMD: jax.Array | None = None) -> list[Call]:
        """What goes into the layers of either stack, where those of the encoder give `y_BMD`."""
        calls = []

        def loop(remat, step, layers, x_BLD, per_layer, beside):
            calls.append(Call(remat, step, layers, x_BLD, per_layer.cycle, beside))
            return (x_BLD if y_BMD is None or len(calls) > 1 else y_BMD), []

        self.run(around | self.inside, microbatch, key, loop, loop)
        return calls

    def leave(self, around: Params, microbatch: Features, key: jax.Array, y_BLD: jax.Array) -> dict[str, Term]:
        """The terms of the loss, without those of the layers, where the decoder's layers give `y_BLD`."""
        outputs = (lambda *call: (call[3], [])), (lambda *_: (y_BLD, []))
        return self.run(around | self.inside, microbatch, key, *outputs)


def opened(graphdef: nnx.GraphDef, loss: Loss, params: Params) -> Halves:
    model = merge(graphdef, params)
    name = type(model).__name__
    if not isinstance(model, EncoderDecoder):
        raise ValueError(
            f"one_forward_one_backward_of_two runs the layers of an EncoderDecoder and not of {name}; set "
            "train.gradients = @one_forward_one_backward for one stack"
        )
    for stack in (model.encoder, model.decoder):
        if not isinstance(stack.loop.run, RunInStages) or stack.loop.run.num_rounds != 1:
            raise ValueError(
                f"one_forward_one_backward_of_two asks for {name}.layer_loop = @pipelined() with num_rounds 1"
            )
        RunInStages(1, 1).cut_for(num_stages(), 1, stack.layers)
    inside = {name: value for name, value in params.items() if name.startswith(("encoder/layers/", "decoder/layers/"))}
    return Halves(graphdef, loss, {n: v for n, v in params.items() if n not in inside}, inside)


def one_forward_one_backward_of_two(
    graphdef: nnx.GraphDef, loss: Loss, params: Params, microbatches: Features, keys: jax.Array, scale: jax.Array
) -> Found:
    """The same numbers as `accumulated`, for an encoder-decoder whose layers are `pipelined`, on a mesh with stages."""
    if num_stages() == 1:
        return accumulated(graphdef, loss, params, microbatches, keys, scale)
    cut = opened(graphdef, loss, params)
    weights = total_weights(cut.in_order, params, microbatches, keys)
    calls = []
    first = jax.tree.map(lambda x: x[0], (microbatches, keys))
    jax.eval_shape(lambda given: calls.extend(cut.calls(cut.around, *given)), first)
    pipes = [
        Pipe(None, microbatches, keys, scale, weights, call.remat, call.step, codes_of(call.layers)) for call in calls
    ]
    two = TwoPipes(cut, *pipes)
    return run_ticks(
        two,
        cut,
        weights,
        num_microbatches=len(keys),
        values_of=functools.partial(values_of, cut),
        shared_of=lambda around: [call.beside.shared for call in two.calls(around, 0)],
        num_ticks=len(keys) + 4 * num_stages() - 3,
    )


def codes_of(layers: nnx.Dict) -> list:
    return [nnx.split(block)[0] for block in layers["cycle"]]


def values_of(cut: Halves, inside: Params) -> list[tuple]:
    """The parameters of both stacks' layers by stage [S, X / S, ...]."""
    return [Opened(cut.graphdef, cut.loss, (name,), cut.around, {}).values(inside) for name in ("encoder", "decoder")]


class Total(NamedTuple):
    """What goes from tick to tick: what stages just wrote and inputs kept of either stack, what the encoder gave, sums.

    output, encoded   the last encoder layer's output of some micro-batches, and what the decoder's layers read of it
    asked             the gradient of `encoded` [S, B, M, D], as far as the stages behind have added to it
    """

    forward: list
    backward: list
    kept: list
    output: jax.Array
    encoded: jax.Array
    asked: jax.Array
    values: list
    shared: list
    around: Params
    shares: dict[str, jax.Array]


class TwoPipes(NamedTuple):
    cut: Halves
    encoder: Pipe
    decoder: Pipe

    def calls(self, around: Params, number: jax.Array | int, y_BMD: jax.Array | None = None) -> list[Call]:
        given = self.encoder.of_microbatch((self.encoder.microbatches, self.encoder.keys), number)
        return self.cut.calls(around, *given, y_BMD)

    def rows_and_keys(self, number: jax.Array) -> list[tuple[Any, Any]]:
        """Of either stack what stands beside a micro-batch, but for the encoder's output."""
        calls = self.calls(self.cut.around, number)
        rows = [call.beside.of_rows._replace(encoded_BMD=None) for call in calls]
        by_stage = [jax.tree.map(lambda x: x.reshape(num_stages(), -1, *x.shape[1:]), call.keys) for call in calls]
        return list(zip(rows, by_stage, strict=True))

    def start(self, values: Any, shared: Any) -> Total:
        S = num_stages()
        x_BMD, x_BLD = (jax.eval_shape(lambda i=i: self.calls(self.cut.around, 0)[i].x_BLD) for i in (0, 1))

        def zeros(of, *dims):
            return jnp.zeros((*dims, *of.shape), of.dtype)

        written = [on_stages(zeros(x_BMD, S)), on_stages(zeros(x_BLD, S))]
        kept = [on_stages(zeros(x_BMD, S, 4 * S - 2)), on_stages(zeros(x_BLD, S, 2 * S - 1))]
        encoder = zeros(x_BMD, 2 * S), zeros(x_BMD, 2 * S - 1), on_stages(zeros(x_BMD, S))
        sums = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (values, self.cut.around, self.encoder.weights))
        return Total(written, written, kept, *encoder, sums[0], jax.tree.map(jnp.zeros_like, shared), *sums[1:])

    def tick(self, total: Total, now: jax.Array, values: Any, shared: Any, beside: Any) -> Total:
        """A piece forward and a piece backward of either stack, and the loss of what leaves the decoder."""
        S, last, stages, around = num_stages(), num_stages() - 1, jnp.arange(num_stages()), self.cut.around
        is_real, first, final = self.encoder.is_real, stages == 0, stages == last
        ahead_e, ahead_d = now - stages, now - S - stages  # the micro-batches that the stages take [S]
        back_e, back_d = now - S - 3 * last + stages, now - S - 2 * last + stages

        x_e = on_stages(moved_on(total.forward[0], self.calls(around, now)[0].x_BLD, first, to_next))
        kept_e = jax.vmap(keep)(total.kept[0], x_e, ahead_e, is_real(ahead_e))
        forward = jax.vmap(self.encoder.forward, in_axes=(0, 0, None, 0, 0), spmd_axis_name=AXIS)
        at_e = self.encoder.at_stages(beside[0], ahead_e)
        y_e, terms_e = forward(values[0], x_e, shared[0], at_e, is_real(ahead_e))

        entering = self.calls(around, now - S, at(total.output, now - S))[1]
        encoded = keep(total.encoded, entering.beside.of_rows.encoded_BMD, now - S, is_real(now - S))
        output = keep(total.output, y_e[last], now - last, is_real(now - last))
        x_d = on_stages(moved_on(total.forward[1], entering.x_BLD, first, to_next))
        kept_d = jax.vmap(keep)(total.kept[1], x_d, ahead_d, is_real(ahead_d))
        forward = jax.vmap(self.decoder_forward, in_axes=(0, 0, None, 0, 0, 0), spmd_axis_name=AXIS)
        at_d = self.decoder.at_stages(beside[1], ahead_d)
        y_d, terms_d = forward(values[1], x_d, shared[1], at(encoded, ahead_d), at_d, is_real(ahead_d))

        shares, of_head, dy_BLD = self.encoder.where_real(now - S - last, self.loss_of, y_d[last])
        dy_d = on_stages(moved_on(total.backward[1], dy_BLD, final, to_previous))
        backward = jax.vmap(self.decoder_backward, in_axes=(0, 0, None, 0, 0, 0, 0), spmd_axis_name=AXIS)
        given = at(encoded, back_d), self.decoder.at_stages(beside[1], back_d), is_real(back_d), dy_d
        dvalues_d, dx_d, dshared_d, new = backward(values[1], jax.vmap(at)(kept_d, back_d), shared[1], *given)
        asked = on_stages(moved_on(total.asked, jnp.zeros_like(new[0]), final, to_previous) + new)

        left = now - S - 2 * last
        of_entry, dy_BMD = self.encoder.where_real(left, self.gradient_between, (at(output, left), dx_d[0], asked[0]))
        dy_e = on_stages(moved_on(total.backward[0], dy_BMD, final, to_previous))
        backward = jax.vmap(self.encoder.backward, in_axes=(0, 0, None, 0, 0, 0), spmd_axis_name=AXIS)
        given = self.encoder.at_stages(beside[0], back_e), is_real(back_e), dy_e
        dvalues_e, dx_e, dshared_e = backward(values[0], jax.vmap(at)(kept_e, back_e), shared[0], *given)
        of_start = self.encoder.where_real(now - S - 3 * last, self.gradient_of_entry, dx_e[0])

        sums = (
            [dvalues_e, dvalues_d],
            jax.tree.map(lambda x: x.sum(axis=0), [dshared_e, dshared_d]),
            jax.tree.map(lambda *parts: sum(parts), of_head, of_entry, of_start),
            shares | shares_of(sum_terms([terms_e, terms_d]), self.encoder.weights),
        )
        sums = jax.tree.map(jnp.add, (total.values, total.shared, total.around, total.shares), sums)
        written = [on_stages(y_e), on_stages(y_d)], [on_stages(dx_e), on_stages(dx_d)]
        return Total(*written, [on_stages(kept_e), on_stages(kept_d)], output, encoded, asked, *sums)

    def decoder_layers(self, values: Any, x_BLD: jax.Array, shared: Any, encoded_BMD: jax.Array, beside: tuple):
        rows, keys = beside
        return self.decoder.layers(values, x_BLD, shared, (rows._replace(encoded_BMD=encoded_BMD), keys))

    def decoder_forward(self, values, x_BLD, shared, encoded_BMD, beside, is_real):
        x_BLD, terms = self.decoder_layers(values, x_BLD, shared, encoded_BMD, beside)
        return x_BLD, jax.tree.map(lambda x: jnp.where(is_real, x, 0), terms)

    def decoder_backward(self, values, x_BLD, shared, encoded_BMD, beside, is_real, dy_BLD):
        """The gradients of a stage's parameters, input, what all stages share, and what it reads of the encoder."""

        def layers(*given):
            return self.decoder_layers(*given, beside)

        (_, terms), pull = jax.vjp(layers, values, x_BLD, shared, encoded_BMD)
        slopes = jax.tree.map(self.decoder.slopes, terms, is_leaf=lambda node: isinstance(node, dict))
        return jax.tree.map(lambda x: jnp.where(is_real, x, 0), pull((dy_BLD, slopes)))

    def loss_of(self, number: jax.Array, y_BLD: jax.Array) -> tuple[dict[str, jax.Array], Params, jax.Array]:
        """The shares of the loss's own terms, and the gradients of what is around and of the decoder's output."""
        given = self.encoder.of_microbatch((self.encoder.microbatches, self.encoder.keys), number)

        def scaled(around, y_BLD):
            shares = shares_of(self.cut.leave(around, *given, y_BLD), self.encoder.weights)
            return sum(shares.values()) * self.encoder.scale, shares

        (_, shares), gradients = jax.value_and_grad(scaled, argnums=(0, 1), has_aux=True)(self.cut.around, y_BLD)
        return shares, *gradients

    def gradient_between(self, number: jax.Array, given: tuple) -> tuple[Params, jax.Array]:
        """Of the parameters around and of the encoder's last layer's output, from what the decoder's layers ask."""
        y_BMD, dx_BLD, dencoded_BMD = given

        def entering(around, y_BMD):
            call = self.calls(around, number, y_BMD)[1]
            return call.x_BLD, call.beside.of_rows.encoded_BMD

        _, pull = jax.vjp(entering, self.cut.around, y_BMD)
        return pull((dx_BLD, dencoded_BMD))

    def gradient_of_entry(self, number: jax.Array, dx_BMD: jax.Array) -> Params:
        _, pull = jax.vjp(lambda around: self.calls(around, number)[0].x_BLD, self.cut.around)
        return pull(dx_BMD)[0]


def at(kept: jax.Array, number: jax.Array) -> jax.Array:
    """What `keep` put in the place of this micro-batch; of several where there are several numbers."""
    return kept[number % kept.shape[0]]
