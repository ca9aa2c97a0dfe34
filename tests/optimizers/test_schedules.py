import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.optimizers import schedules

# Golden values: (schedule, {finished updates: rate}).
GOLDEN = {
    "constant": (schedules.constant(1e-3), {0: 1e-3, 10**6: 1e-3}),
    "warmup_constant": (schedules.warmup_constant(1.0, 4), {0: 0.2, 3: 0.8, 4: 1.0, 99: 1.0}),
    "warmup_linear": (schedules.warmup_linear(1.0, 0, 10, 0.5), {0: 1.0, 5: 0.75, 10: 0.5, 99: 0.5}),
    # nanoGPT's config/train_shakespeare_char.py on the CPU: 1e-3 to 1e-4, warm-up 100, 2,000 steps.
    "warmup_cosine": (
        schedules.warmup_cosine(1e-3, 100, 2000, 1e-4),
        {0: 1e-3 / 101, 99: 1e-3 * 100 / 101, 100: 1e-3, 1050: 5.5e-4, 2000: 1e-4, 5000: 1e-4},
    ),
    # T5X's configs/runs/pretrain.gin: constant * rsqrt_decay, base 1, warm-up 10,000.
    "inverse_square_root": (
        schedules.inverse_square_root(1.0, 10_000),
        {0: 0.01, 9_999: 0.01, 10_000: 0.01, 40_000: 0.005, 1_000_000: 0.001},
    ),
    "warmup_inverse_square_root": (
        schedules.warmup_inverse_square_root(0.5, 4),
        {0: 0.1, 3: 0.4, 4: 0.5, 16: 0.25, 400: 0.05},
    ),
    "warmup_polynomial": (
        schedules.warmup_polynomial(1.0, 4, 104, power=2.0, final=0.2),
        {0: 0.2, 4: 1.0, 54: 0.2 + 0.8 * 0.25, 104: 0.2, 999: 0.2},
    ),
    # transformers' get_wsd_schedule: warm-up 100, stable 800, decay 100 (its own warm-up counts from 0).
    "wsd linear": (
        schedules.warmup_stable_decay(1.0, 100, 1000, 100, "linear"),
        {0: 1 / 101, 100: 1.0, 900: 1.0, 925: 0.75, 950: 0.5, 1000: 0.0, 1100: 0.0},
    ),
    "wsd cosine": (
        schedules.warmup_stable_decay(1.0, 100, 1000, 100, "cosine"),
        {925: 0.853553391, 950: 0.5, 100: 1.0},
    ),
    "wsd 1 - sqrt": (schedules.warmup_stable_decay(1.0, 100, 1000, 100), {925: 0.5, 950: 0.292893219, 899: 1.0}),
    "wsd exponential": (
        schedules.warmup_stable_decay(1.0, 0, 100, 10, "exponential", final=0.1),
        {0: 1.0, 90: 1.0, 95: 0.1 + 0.9 * (2 * 0.5**0.5 - 1), 100: 0.1},
    ),
    "cosine_restarts": (
        schedules.cosine_restarts(1.0, 0, 100, 2, 0.2),
        {0: 1.0, 25: 0.6, 49: 0.2 + 0.4 * (1 + math.cos(0.98 * math.pi)), 50: 1.0, 75: 0.6, 100: 0.2, 300: 0.2},
    ),
    "piecewise": (
        schedules.piecewise([1.0, 0.5, 0.25], [10, 20]),
        {0: 1.0, 9: 1.0, 10: 0.5, 19: 0.5, 20: 0.25, 99: 0.25},
    ),
    "joined": (
        schedules.joined([schedules.constant(1.0), schedules.warmup_linear(1.0, 0, 10)], [5]),
        {0: 1.0, 4: 1.0, 5: 1.0, 10: 0.5, 15: 0.0},
    ),
}
every = pytest.mark.parametrize("schedule, golden", GOLDEN.values(), ids=GOLDEN)


@every
def test_the_rate_at_a_step_is_the_one_of_the_paper(schedule, golden):
    for step, rate in golden.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-6, err_msg=str(step))


@every
def test_a_schedule_is_the_same_inside_jit(schedule, golden):
    steps = jnp.asarray(sorted(golden), jnp.int32)
    inside = jax.jit(jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32)))(steps)
    np.testing.assert_allclose(inside, [schedule(int(step)) for step in steps], rtol=1e-6)


@every
def test_a_rate_is_never_negative_and_never_above_its_peak(schedule, golden):
    rates = np.asarray([schedule(step) for step in range(0, 30_000, 997)])
    assert (rates >= 0).all() and (rates <= max(golden.values()) * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: schedules.constant("1e-3"), "value = '1e-3' must be a number"),
        (lambda: schedules.warmup_stable_decay(1.0, 1, 10, 5, "sqrt"), "shape 'sqrt': choose one of linear, cosine"),
        (lambda: schedules.warmup_stable_decay(1.0, 6, 10, 5), "decay_steps 5 must be at least 1 and fit"),
        (lambda: schedules.cosine_restarts(1.0, 0, 10, 0), "cycles 0 must be at least 1"),
        (lambda: schedules.piecewise([1.0, 0.5], [5, 3]), "2 values need 1 boundaries in rising order"),
        (lambda: schedules.joined([], [5]), "0 schedules need -1 boundaries"),
        (lambda: schedules.warmup_polynomial(1.0, 0, 10, 0.0), "power 0.0 must be above 0"),
        (lambda: schedules.constant(-1.0), "value = -1.0 must be a finite rate"),
        (lambda: schedules.constant(math.nan), "value = nan must be a finite rate"),
        (lambda: schedules.warmup_cosine(1.0, 10, 10), "warmup_steps 10 must be smaller than total_steps 10"),
        (lambda: schedules.warmup_cosine(1.0, 10, "ten"), "total_steps = 'ten' must be a whole number"),
        (lambda: schedules.warmup_linear(1.0, 0, 10, 2.0), "final 2.0 is larger than peak 1.0"),
        (lambda: schedules.warmup_constant(1.0, -1), "warmup_steps = -1 must be a whole number"),
        (lambda: schedules.warmup_constant(1.0, 1.5), "warmup_steps = 1.5 must be a whole number"),
        (lambda: schedules.inverse_square_root(1.0, 0), "warmup_steps 0 must be at least 1"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_the_run(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
