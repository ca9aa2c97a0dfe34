"""Learning-rate schedules: plain Optax schedules, count of finished updates (0 at the first) -> rate.

Warm-up counts from 1, so that the first update is not wasted on a rate of 0: update k of `warmup_steps` runs at
peak * (k + 1) / (warmup_steps + 1), as in nanoGPT's train.py, and update `warmup_steps` runs at the peak.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import optax


def constant(value: float) -> optax.Schedule:
    """Always `value`."""
    check_rates(value=value)
    return optax.constant_schedule(value)


def warmup_constant(peak: float, warmup_steps: int) -> optax.Schedule:
    """Linear warm-up, then `peak` for ever."""
    check_rates(peak=peak)
    check_steps(warmup_steps=warmup_steps)
    return lambda step: warmed(peak, warmup_steps, step)


def warmup_linear(peak: float, warmup_steps: int, total_steps: int, final: float = 0.0) -> optax.Schedule:
    """Linear warm-up, then a straight line to `final` at `total_steps`, and `final` from there on."""
    check_decay(peak, warmup_steps, total_steps, final)

    def schedule(step):
        left = 1.0 - progress(step, warmup_steps, total_steps)
        return jnp.where(step < warmup_steps, warmed(peak, warmup_steps, step), final + (peak - final) * left)

    return schedule


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int, final: float = 0.0) -> optax.Schedule:
    """Linear warm-up, then half a cosine to `final` at `total_steps` (SGDR, arXiv:1608.03983, one cycle; nanoGPT)."""
    check_decay(peak, warmup_steps, total_steps, final)

    def schedule(step):
        left = 0.5 * (1.0 + jnp.cos(math.pi * progress(step, warmup_steps, total_steps)))
        return jnp.where(step < warmup_steps, warmed(peak, warmup_steps, step), final + (peak - final) * left)

    return schedule


def warmup_polynomial(
    peak: float, warmup_steps: int, total_steps: int, power: float = 1.0, final: float = 0.0
) -> optax.Schedule:
    """Linear warm-up, then final + (peak - final) * (1 - p) ** power, p being the share of the decay that is done."""
    check_decay(peak, warmup_steps, total_steps, final)
    if not power > 0:
        raise ValueError(f"power {power} must be above 0")

    def schedule(step):
        left = (1.0 - progress(step, warmup_steps, total_steps)) ** power
        return jnp.where(step < warmup_steps, warmed(peak, warmup_steps, step), final + (peak - final) * left)

    return schedule


# What is left of peak - final when the share p of the decay is done.
DECAYS = {
    "linear": lambda p: 1.0 - p,
    "cosine": lambda p: 0.5 * (1.0 + jnp.cos(math.pi * p)),
    "one_minus_sqrt": lambda p: 1.0 - jnp.sqrt(p),  # arXiv:2405.18392, section 3.1
    "exponential": lambda p: 2.0 * 0.5**p - 1.0,  # Megatron-LM's
}


def warmup_stable_decay(
    peak: float,
    warmup_steps: int,
    total_steps: int,
    decay_steps: int,
    shape: str = "one_minus_sqrt",
    final: float = 0.0,
) -> optax.Schedule:
    """WSD (MiniCPM, arXiv:2404.06395, section 4): warm-up, `peak`, and to `final` in the last `decay_steps` steps.

    A run that goes on takes a checkpoint from before the decay. shape: linear, cosine, one_minus_sqrt or exponential.
    """
    check_decay(peak, warmup_steps, total_steps, final)
    check_steps(decay_steps=decay_steps)
    if shape not in DECAYS:
        raise ValueError(f"shape {shape!r}: choose one of {', '.join(DECAYS)}")
    if not 0 < decay_steps <= total_steps - warmup_steps:
        raise ValueError(
            f"decay_steps {decay_steps} must be at least 1 and fit between the warm-up's end, step {warmup_steps}, and "
            f"total_steps {total_steps}"
        )

    def schedule(step):
        left = DECAYS[shape](progress(step, total_steps - decay_steps, total_steps))
        return jnp.where(step < warmup_steps, warmed(peak, warmup_steps, step), final + (peak - final) * left)

    return schedule


def cosine_restarts(
    peak: float, warmup_steps: int, total_steps: int, cycles: int, final: float = 0.0
) -> optax.Schedule:
    """Linear warm-up, then `cycles` half cosines of one length, from `peak` to `final` (SGDR, arXiv:1608.03983)."""
    check_decay(peak, warmup_steps, total_steps, final)
    check_steps(cycles=cycles)
    if cycles < 1:
        raise ValueError(f"cycles {cycles} must be at least 1")

    def schedule(step):
        p = progress(step, warmup_steps, total_steps)
        within = jnp.where(p < 1.0, (cycles * p) % 1.0, 1.0)
        left = 0.5 * (1.0 + jnp.cos(math.pi * within))
        return jnp.where(step < warmup_steps, warmed(peak, warmup_steps, step), final + (peak - final) * left)

    return schedule


def piecewise(values: Sequence[float], boundaries: Sequence[int]) -> optax.Schedule:
    """values[0] before step boundaries[0], values[1] before boundaries[1], ..., the last value from the last one on."""
    check_rates(**{f"values[{i}]": value for i, value in enumerate(values)})
    check_steps(**{f"boundaries[{i}]": step for i, step in enumerate(boundaries)})
    if len(values) != len(boundaries) + 1 or list(boundaries) != sorted(set(boundaries)):
        raise ValueError(f"{len(values)} values need {len(values) - 1} boundaries in rising order, not {boundaries}")
    rates, steps = jnp.asarray(values, jnp.float32), jnp.asarray(boundaries, jnp.int32)
    return lambda step: rates[jnp.searchsorted(steps, step, side="right")]


def joined(schedules: Sequence[optax.Schedule], boundaries: Sequence[int]) -> optax.Schedule:
    """Stages of a run: each schedule counts from 0 at its own boundary (the first one at step 0)."""
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(f"{len(schedules)} schedules need {len(schedules) - 1} boundaries, not {list(boundaries)}")
    return optax.join_schedules(schedules, list(boundaries))


def inverse_square_root(base: float = 1.0, warmup_steps: int = 10_000) -> optax.Schedule:
    """base / sqrt(max(step, warmup_steps)): flat, then falling (T5, arXiv:1910.10683, section 3.1.2).

    T5X writes it "constant * rsqrt_decay" and counts from 0 too. Made for Adafactor, which multiplies it by the size of
    the parameter.
    """
    check_rates(base=base)
    check_steps(warmup_steps=warmup_steps)
    if warmup_steps < 1:
        raise ValueError(f"warmup_steps {warmup_steps} must be at least 1: 1/sqrt(0) is infinite")
    return lambda step: base / jnp.sqrt(jnp.maximum(jnp.asarray(step, jnp.float32), warmup_steps))


def warmup_inverse_square_root(peak: float, warmup_steps: int) -> optax.Schedule:
    """Linear warm-up to `peak`, then peak * sqrt(warmup_steps / step) (Transformer, arXiv:1706.03762, section 5.3)."""
    decay = inverse_square_root(peak * math.sqrt(max(warmup_steps, 1)), warmup_steps)
    return lambda step: jnp.where(step < warmup_steps, warmed(peak, warmup_steps, step), decay(step))


def warmed(peak: float, warmup_steps: int, step) -> jnp.ndarray:
    return peak * jnp.minimum((jnp.asarray(step, jnp.float32) + 1.0) / (warmup_steps + 1.0), 1.0)


def progress(step, warmup_steps: int, total_steps: int) -> jnp.ndarray:
    """0 at the end of the warm-up, 1 at `total_steps` and after."""
    return jnp.clip((jnp.asarray(step, jnp.float32) - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)


def check_decay(peak: float, warmup_steps: int, total_steps: int, final: float) -> None:
    check_rates(peak=peak, final=final)
    check_steps(warmup_steps=warmup_steps, total_steps=total_steps)
    if warmup_steps >= total_steps:
        raise ValueError(f"warmup_steps {warmup_steps} must be smaller than total_steps {total_steps}")
    if final > peak:
        raise ValueError(f"final {final} is larger than peak {peak}; a decay ends below its peak")


def check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise ValueError(f"{name} = {rate!r} must be a number (write {name} = 1e-3, without quotes)")
        if not 0.0 <= rate < math.inf:
            raise ValueError(f"{name} = {rate} must be a finite rate of 0 or more")


def check_steps(**steps: int) -> None:
    for name, count in steps.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} = {count!r} must be a whole number of steps, 0 or more")
