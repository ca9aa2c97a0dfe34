"""Dynamic loss scaling for FP16 (arXiv:1710.03740, section 3.2; hysteresis as in Megatron-LM's DynamicGradScaler).

The loss is multiplied by `scale` before the backward pass, so that small gradients do not vanish in float16, and the
gradients are divided by it before anything else looks at them. It is a power of two, so both are exact. A gradient that
overflowed is never applied: parameters, moments and the optimizer's own count stay as they were.

`loss_scaled` stands around every other optimizer; the train step asks `scale_of` what to multiply by.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class LossScaled(NamedTuple):
    """scale, and since its last change: steps without an overflow, overflows that are still allowed; steps skipped."""

    scale: jax.Array
    good_steps: jax.Array
    overflows_left: jax.Array
    skipped_steps: jax.Array
    inner: Any


def loss_scaled(
    optimizer: optax.GradientTransformation,
    *,
    initial: float = 2.0**16,
    window: int = 2000,
    hysteresis: int = 1,
    floor: float = 1.0,
) -> optax.GradientTransformation:
    """The scale doubles after `window` steps without an overflow and halves at the `hysteresis`-th overflow since then.

    Below `floor` it does not fall. Flax's DynamicScale has initial 2**16, window 2000, hysteresis 1, and doubles one
    good step later; Megatron-LM's defaults are initial 2**32, window 1000, hysteresis 2, floor 1.
    """
    for name, value in (("initial", initial), ("floor", floor)):
        if value <= 0 or value != 2.0 ** round(jnp.log2(value).item()):
            raise ValueError(f"{name} {value} must be a power of two, so that scaling is exact")
    if window < 1 or hysteresis < 1 or floor > initial:
        raise ValueError(f"window {window} and hysteresis {hysteresis} must be at least 1, floor at most initial")

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return LossScaled(jnp.float32(initial), zero, zero + hysteresis, zero, optimizer.init(params))

    def update(grads, state, params=None):
        finite = jnp.stack([jnp.isfinite(grad).all() for grad in jax.tree.leaves(grads)]).all()
        unscaled = jax.tree.map(lambda grad: jnp.where(finite, grad / state.scale, 0.0).astype(grad.dtype), grads)
        updates, inner = optimizer.update(unscaled, state.inner, params)
        updates = jax.tree.map(lambda update: jnp.where(finite, update, 0.0).astype(update.dtype), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner, state.inner)
        good = jnp.where(finite, state.good_steps + 1, 0)
        left = jnp.where(finite, state.overflows_left, state.overflows_left - 1)
        grows, falls = good >= window, left < 1
        scale = jnp.where(grows, state.scale * 2.0, jnp.where(falls, state.scale * 0.5, state.scale))
        scale = jnp.where(jnp.isfinite(scale), jnp.maximum(scale, floor), state.scale)
        return updates, LossScaled(
            scale,
            jnp.where(grows, 0, good),
            jnp.where(grows | falls, hysteresis, left),
            state.skipped_steps + ~finite,
            inner,
        )

    return optax.GradientTransformation(init, update)


def scale_of(opt_state: Any) -> jax.Array | float:
    """What the loss is to be multiplied by; 1 without loss scaling."""
    if isinstance(opt_state, LossScaled):
        return opt_state.scale
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, LossScaled))
    if any(isinstance(node, LossScaled) for node in nodes):
        raise ValueError("loss_scaled inside another optimizer, which would see scaled gradients: put it outside")
    return 1.0


def metrics_of(opt_state: Any, grads: Mapping[str, jax.Array], scale: jax.Array | float) -> dict[str, jax.Array]:
    """grad_norm of the unscaled gradients, and where the loss is scaled: scale, and how many steps were skipped so far.

    Of gradients that overflowed, and were skipped, the norm is reported as 0. (What the forward pass gives does not
    depend on the scale: a loss that is not finite stops the run, as ever.)
    """
    norm = optax.tree.norm(grads)
    if not isinstance(opt_state, LossScaled):
        return {"grad_norm": norm}
    return {
        "grad_norm": jnp.where(jnp.isfinite(norm), norm / scale, 0.0),
        "loss_scale": scale,
        "skipped_steps": opt_state.skipped_steps,
    }
