"""One optimizer step. It names no objective, no model and no mesh.

The loss is the sum over terms of (sum over all tokens) / (weight of all tokens), both over the whole global batch. The
weights do not depend on the parameters, so they are added up first; every micro-batch then adds its exact share to the
gradient, and the number of micro-batches changes nothing but the order of a float32 sum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.parameters import merge
from t5x_like.optimizers import loss_scaling
from t5x_like.train.state import TrainState

# (model, batch, dropout key) -> terms by name
Loss = Callable[[nnx.Module, Features, jax.Array], dict[str, Term]]
# (graphdef, loss, params, micro-batches [n, B / n, ...], a dropout key for each, loss scale) -> Found
Gradients = Callable[..., "Found"]


class Found(NamedTuple):
    """What all micro-batches of a step give, by name of the parameter or of the term."""

    gradients: dict[str, jax.Array]  # times the loss scale, in float32
    shares: dict[str, jax.Array]  # of each term, its sum over all tokens by its weight
    weights: dict[str, jax.Array]


def accumulated(
    graphdef: nnx.GraphDef,
    loss: Loss,
    params: dict[str, jax.Array],
    microbatches: Features,
    keys: jax.Array,
    scale: jax.Array,
) -> Found:
    """One micro-batch after the other, forward and backward."""

    def terms(params, microbatch, key):
        return loss(merge(graphdef, params), microbatch, key)

    # Nothing of the forward pass is needed for the weights, so the compiler drops it here.
    weights = total_weights(terms, params, microbatches, keys)

    def share_of_loss(params, microbatch, key):
        shares = shares_of(terms(params, microbatch, key), weights)
        return sum(shares.values()) * scale, shares

    def add(total, microbatch_and_key):
        (_, shares), grads = jax.value_and_grad(share_of_loss, has_aux=True)(params, *microbatch_and_key)
        return jax.tree.map(jnp.add, total, (grads, shares)), None

    # In float32 whatever the parameters are kept in: what a micro-batch adds must not be rounded away.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (params, weights))
    (gradients, shares), _ = jax.lax.scan(add, zeros, (microbatches, keys))
    return Found(gradients, shares, weights)


def total_weights(terms: Callable, params: Any, microbatches: Features, keys: jax.Array) -> dict[str, jax.Array]:
    """The weight of each term of terms(params, microbatch, key), over all micro-batches."""

    def add(total, microbatch_and_key):
        new = {name: term.weight for name, term in terms(params, *microbatch_and_key).items()}
        return jax.tree.map(jnp.add, total, new), None

    first = jax.tree.map(lambda x: x[0], (microbatches, keys))
    zeros = {name: jnp.zeros(()) for name in jax.eval_shape(terms, params, *first)}
    return jax.lax.scan(add, zeros, (microbatches, keys))[0]


def shares_of(terms: dict[str, Term], weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Of the means over the global batch, what these tokens contribute."""
    return {name: term.sum / jnp.where(weights[name] > 0, weights[name], 1.0) for name, term in terms.items()}


def make_train_step(
    graphdef: nnx.GraphDef,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    num_microbatches: int,
    learning_rate: optax.Schedule | None = None,
    gradients: Gradients = accumulated,
) -> Callable[[TrainState, Features, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """step(state, batch, key) -> (state, metrics); metrics are float32 scalars, the same on every device.

    `learning_rate` only adds the rate of the step to the metrics.
    """

    def step(state: TrainState, batch: Features, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        microbatches = jax.tree.map(lambda x: split_rows(x, num_microbatches), batch)
        keys = jax.random.split(jax.random.fold_in(key, state.step), num_microbatches)
        scale = loss_scaling.scale_of(state.opt_state)
        grads, losses, weights = gradients(graphdef, loss, state.params, microbatches, keys, scale)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            **losses,
            **{f"{name}_weight": weight for name, weight in weights.items()},
            **loss_scaling.metrics_of(opt_state, grads, scale),
            "update_norm": optax.tree.norm(updates),
        }
        if learning_rate is not None:
            metrics["learning_rate"] = jnp.asarray(learning_rate(state.step), jnp.float32)
        return TrainState(state.step + 1, params, opt_state), metrics

    return step


def split_rows(array: jax.Array, num_microbatches: int) -> jax.Array:
    """[B, ...] -> [n, B / n, ...]: micro-batch i holds every n-th row, so that every device keeps its own rows."""
    rows = array.shape[0] // num_microbatches
    return array.reshape(rows, num_microbatches, *array.shape[1:]).swapaxes(0, 1)
