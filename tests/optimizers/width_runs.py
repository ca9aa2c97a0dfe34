"""Small runs of one model at several widths and rates, by muP and by the standard way. A benchmark uses them too."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import CrossEntropy
from t5x_like.models.decoder import Decoder
from t5x_like.models.initializers import Initializers, fan_in_normal, normal
from t5x_like.models.parameters import merge, split
from t5x_like.models.width_scaling import MupHead, mup_init
from t5x_like.optimizers.mup import mup_adamw

V, L, BASE = 64, 16, 64


class Found(NamedTuple):
    """By rate: mean loss of the last quarter of the steps; how far logits and hidden states went (root mean square)."""

    losses: np.ndarray
    logits: np.ndarray
    hidden: np.ndarray


def standard_init(*, num_layers: int, head_dim: int) -> Initializers:
    """PyTorch's: fan-in everywhere, the head too."""
    every = dict.fromkeys(Initializers._fields, fan_in_normal(1.0))
    return Initializers(**every | {"embedding": normal(1.0)})


def batches(steps: int, num_rows: int) -> Features:
    """[steps, num_rows, L] of a Markov chain of V states, each with a few likely followers."""
    rng = np.random.default_rng(0)
    cumulated = np.cumsum(rng.dirichlet(np.full(V, 0.1), V), axis=1)
    tokens = np.zeros((steps, num_rows, L + 1), np.int32)
    tokens[..., 0] = rng.integers(V, size=(steps, num_rows))
    for place in range(L):
        draws = rng.random((steps, num_rows, 1))
        tokens[..., place + 1] = (draws > cumulated[tokens[..., place]]).sum(axis=-1).clip(max=V - 1)
    ones = np.ones((steps, num_rows, L), np.int32)
    order = np.broadcast_to(np.arange(L, dtype=np.int32), ones.shape)
    return Features(tokens[..., :-1], tokens[..., 1:], ones.astype(np.float32), ones, order[..., None], order)


def run(
    width: int,
    rates: tuple[float, ...],
    *,
    mup: bool,
    steps: int,
    num_layers: int = 1,
    num_rows: int = 8,
    seed: int = 0,
) -> Found:
    sizes = {"num_heads": width // 16, "head_dim": 16, "d_ff": 2 * width}
    how = {"init": mup_init, "head": functools.partial(MupHead, base_width=BASE)} if mup else {"init": standard_init}
    model = functools.partial(Decoder, vocab_size=V, num_layers=num_layers, d_model=width, **sizes, **how)
    graphdef, params, _ = split(model(rngs=nnx.Rngs(params=jax.random.key(seed))))
    rows, loss = jax.tree.map(jnp.asarray, batches(steps, num_rows)), CrossEntropy()
    key = jax.random.key(0)

    def outputs(params):
        module = merge(graphdef, params)
        first = jax.tree.map(lambda x: x[0], rows)
        hidden = module.stack(module.embedding(first.tokens), first).x_BLD
        return module(first), hidden

    def of_rate(rate):
        optimizer = mup_adamw(rate, width=width if mup else BASE, base_width=BASE)

        def step(carry, batch):
            params, state = carry

            def mean(params):
                term = loss(merge(graphdef, params), batch, key)["loss"]
                return term.sum / term.weight

            value, grads = jax.value_and_grad(mean)(params)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        (trained, _), values = jax.lax.scan(step, (params, optimizer.init(params)), rows)
        moved = [jnp.sqrt(jnp.mean((a - b) ** 2)) for a, b in zip(outputs(trained), outputs(params), strict=True)]
        return values[-max(steps // 4, 1) :].mean(), *moved

    return Found(*jax.device_get(jax.jit(lambda rates: jax.lax.map(of_rate, rates))(jnp.array(rates, jnp.float32))))
