"""Parameters in bfloat16 and nothing in float32 beside them (stochastic rounding: arXiv:1502.02551; arXiv:2010.06192).

The update is added in float32 and the sum goes to one of its two neighbours in bfloat16, the nearer the likelier: the
mean is the sum itself. Rounding to the nearest instead would lose every update of less than half of the last place.

The noise of an element follows from (seed, number of the update, name of the parameter, place in it) alone: it is the
same on any mesh and with any micro-batches.
"""

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class StochasticallyRounded(NamedTuple):
    count: jax.Array  # updates that are done
    inner: Any


def stochastically_rounded(optimizer: optax.GradientTransformation, seed: int = 0) -> optax.GradientTransformation:
    """`optimizer`, computing in float32, for a model that is `kept_in` bfloat16.

    It stands around every other optimizer but `loss_scaled`. Gradients come in float32, as the train step adds them up;
    parameters of other types than bfloat16 go by `optimizer` alone, and a model without any of it is refused.
    """

    def init(params):
        if not any(param.dtype == jnp.bfloat16 for param in params.values()):
            raise ValueError(
                "stochastically_rounded: no parameter is in bfloat16; set train.model = @kept_in and kept_in.model to "
                "the model, or leave stochastically_rounded away"
            )
        return StochasticallyRounded(jnp.zeros((), jnp.int32), optimizer.init(in_float32(params)))

    def update(grads, state, params):
        whole = in_float32(params)
        updates, inner = optimizer.update(in_float32(grads), state.inner, whole)
        key = jax.random.fold_in(jax.random.key(seed), state.count)
        rounded = {}
        for name, update in updates.items():
            if params[name].dtype == jnp.bfloat16:
                one = jax.random.fold_in(key, zlib.crc32(name.encode()))
                # Added to the parameter in float32 this gives the rounded sum itself, unless one update makes a
                # parameter 2**15 times smaller: then it is off by 2**-24 of what it was.
                update = rounded_to_bfloat16(one, whole[name] + update) - whole[name]
            rounded[name] = update.astype(grads[name].dtype)
        return rounded, StochasticallyRounded(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def in_float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def rounded_to_bfloat16(key: jax.Array, x: jax.Array) -> jax.Array:
    """float32, each element one of the two bfloat16 values around that of `x`, whose mean it is; exact ones stay.

    A bfloat16 is the first half of a float32, and a random second half added to it carries into the first one as often
    as it should. Integers, because XLA may drop a cast to bfloat16 and back. What is not finite stays as it is.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x)
