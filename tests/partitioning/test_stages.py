import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.models.parameters import split
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.stages import Cut, pipelined
from tests.partitioning import mesh_runs


def schedule(cut):
    """[tick][stage]: (round, micro-batch), or None in the bubble."""
    ticks = [cut.turns(jnp.asarray(tick)) for tick in range(cut.num_ticks)]
    places = range(cut.num_stages)
    return [[(int(t.number[s]), int(t.microbatch[s])) if t.is_real[s] else None for s in places] for t in ticks]


def test_gpipe_is_a_diagonal():
    assert schedule(Cut(3, 4, 1)) == [
        [(0, 0), None, None],
        [(0, 1), (0, 0), None],
        [(0, 2), (0, 1), (0, 0)],
        [(0, 3), (0, 2), (0, 1)],
        [None, (0, 3), (0, 2)],
        [None, None, (0, 3)],
    ]


@pytest.mark.parametrize("cut", [Cut(2, 6, 1), Cut(2, 4, 3), Cut(4, 8, 2)])
def test_every_microbatch_goes_through_all_rounds_and_stages_in_order_a_tick_each(cut):
    table = schedule(cut)
    for microbatch in range(cut.num_microbatches):
        visits = [
            (number, stage, tick)
            for tick, row in enumerate(table)
            for stage, found in enumerate(row)
            if found is not None
            for number in [found[0]]
            if found[1] == microbatch
        ]
        in_order = sorted(visits)
        assert [visit[:2] for visit in in_order] == [
            (r, s) for r in range(cut.num_rounds) for s in range(cut.num_stages)
        ]
        ticks = [tick for _, _, tick in in_order]
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        assert ticks[-1] == cut.last_ticks[microbatch]


def test_a_pipeline_has_the_parameters_of_a_scanned_stack_and_rounds_cut_them():
    def parts(**loop):
        return split(mesh_runs.model_of("llama", **loop)(rngs=nnx.Rngs(params=jax.random.key(0))))

    scanned, one, two = (
        parts(),
        parts(layer_loop=pipelined(num_microbatches=2)),
        parts(layer_loop=pipelined(num_microbatches=2, num_rounds=2)),
    )
    assert scanned.axes == one.axes
    for name, value in scanned.params.items():
        np.testing.assert_array_equal(one.params[name], value)
        np.testing.assert_array_equal(two.params[name].reshape(value.shape), value)
    name = "stack/layers/cycle/0/mlp/up"
    assert (two.params[name].shape[:2], two.axes[name][:2]) == ((2, 2), (None, "layers"))


REFUSED = {
    "a scanned stack": ("scanned", 4, "mesh stage=4: Decoder does not run stack in stages; set Decoder.layer_loop ="),
    "too few layers": (pipelined(num_microbatches=4), 6, "6 cycles of layers do not divide over 4 stages"),
    "rows": (pipelined(num_microbatches=3), 4, "8 rows do not divide into the pipeline's 3 micro-batches"),
    "groups": (pipelined(num_microbatches=2, num_rounds=2), 8, "num_microbatches 2 is not a multiple of the 4 stages"),
    "rounds": (pipelined(num_microbatches=4, num_rounds=3), 4, "whole cycles of 1 in each of 3 round(s)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_cannot_be_is_refused_in_one_sentence(name):
    loop, num_layers, message = REFUSED[name]
    rules = AxisRules(layers=None)  # else a parameter's own dimension is refused first
    with pytest.raises(ValueError) as error:
        ready = mesh_runs.set_up(
            mesh_runs.model_of("llama", num_layers, layer_loop=loop), sizes={"stage": 4}, rules=rules
        )
        batch, key = mesh_runs.batches_of("llama", 1)[0], jax.random.key(0)
        jax.eval_shape(ready.step, ready.plan.abstract, batch, key)
    assert message in str(error.value)


def test_there_is_at_least_one_microbatch():
    with pytest.raises(ValueError, match="num_microbatches 0 must be at least 1"):
        pipelined(num_microbatches=0)
