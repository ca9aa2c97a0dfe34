"""muP: what a step does to activations does not grow with the width, and the rate of a narrow model fits a wide one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from t5x_like.models.heads import TiedHead
from t5x_like.models.layers import sizes_of
from t5x_like.models.width_scaling import MupHead, mup_init
from t5x_like.optimizers.mup import mup_adamw
from t5x_like.optimizers.param_groups import AllExcept
from tests.optimizers.width_runs import run

WIDTHS = (64, 256)
SIZES = sizes_of(d_model=32, num_heads=4, num_kv_heads=None, head_dim=None, d_ff=64, dtype="float32")


def test_a_few_steps_move_logits_as_far_at_any_width_where_the_standard_way_moves_wide_ones_further():
    how = {"steps": 4, "num_rows": 2}
    by_mup, standard = ([run(width, (2.0**-8,), mup=mup, **how) for width in WIDTHS] for mup in (True, False))
    assert 0.5 < by_mup[1].logits[0] / by_mup[0].logits[0] < 1.25
    assert 0.5 < by_mup[1].hidden[0] / by_mup[0].hidden[0] < 1.25
    assert standard[1].logits[0] / standard[0].logits[0] > 1.8


def test_the_best_rate_of_a_narrow_model_is_that_of_a_wide_one_by_mup_and_too_large_by_the_standard_way():
    rates = tuple(2.0**power for power in range(-10, -5))
    best = {}
    for mup in (True, False):
        narrow, wide = (run(width, rates, mup=mup, steps=30, num_rows=2).losses for width in WIDTHS)
        best[mup] = narrow.argmin(), wide.argmin()
        assert 0 < narrow.argmin() < len(rates) - 1  # the grid holds it
    assert best[True][0] == best[True][1]
    assert best[False][1] <= best[False][0] - 2  # a quarter of it, or less


def test_at_the_base_width_it_is_adamw_and_wider_only_hidden_matrices_go_slower():
    key = jax.random.key(0)
    shapes = {"stack/layers/0/mlp/up": (8, 16), "stack/layers/0/norm/scale": (8,), "embedding/table": (32, 8)}
    shapes |= {"head/head/kernel": (8, 32)}
    params = {name: jax.random.normal(key, shape) for name, shape in shapes.items()}

    def updates(optimizer):
        return optimizer.update(params, optimizer.init(params), params)[0]

    how = {"b2": 0.95, "weight_decay": 0.1, "mask": AllExcept()}
    adamw = updates(optax.adamw(0.1, **how))
    jax.tree.map(np.testing.assert_array_equal, updates(mup_adamw(0.1, width=8, base_width=8, **how)), adamw)
    wide = updates(mup_adamw(0.1, width=32, base_width=8, **how))
    for name, update in wide.items():
        decay = 0.0 if name.endswith("scale") else -0.1 * 0.1 * np.asarray(params[name])
        share = 0.25 if "mlp" in name else 1.0
        np.testing.assert_allclose(update - decay, share * (adamw[name] - decay), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("width", [16, 64])
def test_initial_values_are_those_of_table_8(width):
    init = mup_init(num_layers=1, head_dim=8, logits=0.1)
    expected = dict.fromkeys(("query", "attention_out", "mlp_in", "mlp_out"), width**-0.5)
    for field, stddev in (expected | {"embedding": 1.0, "logits": 0.1}).items():
        drawn = getattr(init, field)(jax.random.key(0), (width, 4096), width)
        np.testing.assert_allclose(drawn.std(), stddev, rtol=0.02)


def test_logits_of_a_wider_head_are_multiplied_by_what_it_is_wider():
    init, table, x = mup_init(num_layers=1, head_dim=8), jnp.ones((5, 32)), jnp.ones((1, 2, 32))
    head = MupHead(SIZES, vocab_size=5, init=init, rngs=nnx.Rngs(params=0), base_width=8, head=TiedHead)
    np.testing.assert_allclose(head(x, table), 32 / 4)


def test_widths_that_are_none_are_refused():
    with pytest.raises(ValueError, match="width 0 and base_width 8 are d_model"):
        mup_adamw(0.1, width=0, base_width=8)
    with pytest.raises(ValueError, match="base_width 0 must be at least 1"):
        MupHead(SIZES, vocab_size=5, init=mup_init, rngs=nnx.Rngs(params=0), base_width=0)
