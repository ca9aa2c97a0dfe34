"""What `plan` reads from a compiled program, against what is known of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5x_like.data import rendering
from t5x_like.data.pipeline import Pipeline
from t5x_like.losses import CrossEntropy
from t5x_like.models.decoder import Decoder
from t5x_like.models.layer_loops import save_nothing
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.planning import activations, plan, roofline
from t5x_like.planning.collectives import Collective, collectives_of
from t5x_like.train.step import accumulated
from tests.commands.command_line import succeed, t5x_like

MODEL = functools.partial(Decoder, vocab_size=64, num_layers=3, d_model=32, num_heads=4, d_ff=64)


def compiled(function, mesh, *specs, shape=(8, 16)):
    array = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec)) for spec in specs]
    return jax.jit(function).lower(*array).compile().as_text()


def test_a_collective_is_told_with_its_axis_its_bytes_and_how_often_a_loop_turns():
    mesh = make_mesh(data=2, fsdp=4)

    def gathered(x, *spec):
        return jax.lax.with_sharding_constraint(x * 2, NamedSharding(mesh, P(*spec)))

    found = collectives_of(compiled(lambda x: gathered(x, None, "data"), mesh, P("fsdp", "data")), mesh)
    assert found == [Collective("all-gather", "fsdp", 256, 1)]
    found = collectives_of(compiled(gathered, mesh, P(("data", "fsdp"))), mesh)
    assert found == [Collective("all-gather", "data x fsdp", 512, 1)]

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    def turn(x):
        def one(carry, _):
            return jax.lax.ppermute(carry, "data", [(0, 1), (1, 0)]) + 1, None

        return jax.lax.scan(one, x, length=5)[0]

    found = collectives_of(compiled(turn, mesh, P("data")), mesh)
    assert sum(one.times for one in found if one.kind == "collective-permute") == 5
    assert {(one.axes, one.bytes) for one in found} == {("data", 256)}


def run_of(mesh, rules=AxisRules(), layer_loop="unrolled", batch_size=8, **changes):  # noqa: B008  frozen
    lengths, render = {"targets": 16}, rendering.decoder_only
    data = Pipeline(directory="none", mixture="none", lengths=lengths, batch_size=batch_size, render=render)
    run = {"model": functools.partial(MODEL, layer_loop=layer_loop), "optimizer": optax.adamw(1e-3), "data": data}
    run |= {
        "loss": CrossEntropy(),
        "num_microbatches": 1,
        "gradients": accumulated,
        "learning_rate": None,
        "optimizer_rules": None,
        "axis_rules": rules,
    }
    return {**run, "mesh": functools.partial(make_mesh, **mesh), **changes}


def report_of(mesh, **changes):
    return plan.plan(run_of(mesh, **changes), None)


def test_a_plan_counts_what_the_shapes_say():
    report = report_of({"data": -1})
    layer = 4 * 32 * 32 + 3 * 32 * 64
    assert sum(report.groups.values()) == 2 * 64 * 32 + 3 * (layer + 2 * 32) + 32
    matrices, pairs = 64 * 32 + 3 * layer, 12 * 3 * 32 * 16 * 16
    assert report.work.full == 8 * (6 * matrices * 16 + pairs)
    assert report.work.causal == 8 * (6 * matrices * 16 + pairs / 2)
    assert report.tokens == 128 and report.peak >= report.params_bytes + report.optimizer_bytes
    scanned = report_of({"data": -1}, layer_loop="scanned")
    assert scanned.work == report.work and sum(scanned.groups.values()) == sum(report.groups.values())


def test_parameters_split_over_fsdp_are_gathered_and_their_gradients_summed():
    whole, split = report_of({"data": 8}), report_of({"data": 1, "fsdp": 8})
    assert split.params_bytes < whole.params_bytes / 7 and split.optimizer_bytes < whole.optimizer_bytes / 7
    assert {one.axes for one in whole.collectives} == {"data"}
    assert {one.kind for one in whole.collectives} == {"all-reduce"}
    assert sum(one.bytes * one.times for one in whole.collectives) >= whole.params_bytes  # every gradient
    gathered = sum(one.bytes * one.times for one in split.collectives if one.kind == "all-gather")
    assert gathered >= whole.params_bytes * 0.9  # every parameter once at least
    assert {one.axes for one in split.collectives} == {"fsdp"}


def test_zero_splits_the_optimizer_and_the_sum_of_the_gradients_of_micro_batches():
    """arXiv:1910.02054, stages 1 and 2: 7/8 of the moments' bytes on 8 devices, and 7/8 of the accumulator's."""
    model = functools.partial(MODEL, d_model=128, d_ff=512, vocab_size=256)
    settings = {"rules": AxisRules(embed=None), "model": model, "num_microbatches": 2, "batch_size": 16}
    whole = report_of({"data": 1, "fsdp": 8}, **settings)
    split = report_of({"data": 1, "fsdp": 8}, optimizer_rules=AxisRules(), **settings)
    assert split.params_bytes == whole.params_bytes
    assert whole.optimizer_bytes * 0.12 < split.optimizer_bytes < whole.optimizer_bytes * 0.15
    assert whole.temporaries - split.temporaries > 0.8 * whole.params_bytes


def test_the_roofline_is_the_largest_of_its_times_and_the_sum_of_them():
    device = roofline.Device(flops=100.0, memory=1.0, bandwidth=10.0, link=5.0)
    sent = [Collective("all-reduce", "data", 10, 2), Collective("all-gather", "fsdp", 5, 2)]
    seconds = roofline.seconds_of(device, roofline.Work(800.0, 700.0), 4, 30.0, sent)
    np.testing.assert_allclose(seconds, [2.0, 3.0, 10.0])
    assert seconds.least == 10.0 and seconds.most == 15.0
    assert roofline.device_named("NVIDIA H100 80GB HBM3") is roofline.DEVICES["H100"]
    assert roofline.device_named("TPU v5 lite") is roofline.DEVICES["TPU v5 lite"]
    assert roofline.device_named("cpu") is None


CLOSED = {
    "v5e:16x16": (True, True, False),
    "v5e:8x16": (False, True, False),
    "v6e:8x8": (False, False, False),
    "v5p:4x4x8": (True, True, True),
    "v4:2x2x4": (False, False, False),
}


@pytest.mark.parametrize("topology", CLOSED)
def test_a_slice_is_closed_to_a_ring_where_google_says_so(topology):
    """cloud.google.com/tpu/docs: v5e and v6e in a dimension of 16; v4 and v5p where all are multiples of 4."""
    assert plan.closed_dims(topology) == CLOSED[topology]


def test_slices_are_those_of_a_topology():
    told = t5x_like("plan", "--gin_file=runs/quickstart.gin", "--num_slices=2")
    assert told.code == 2 and "--num_slices=2 says how many slices of what: give --topology" in told.err


def test_what_does_not_fit_is_one_sentence_with_the_remedies():
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: E1000: 63.34G exceeds 15.75G\nmore")

    with pytest.raises(ValueError, match=r"does not fit on a device \(.*63.34G exceeds 15.75G\): split over more"):
        plan.compiled_or_refused(Lowered())


def test_what_an_override_brings_may_be_left_open_too(tmp_path):
    """The pipeline is named on the command line, and its folder nowhere."""
    (tmp_path / "model.gin").write_text("include 'models/llama_tiny.gin'\ninclude 'optimizers/adamw.gin'\n")
    told = succeed(
        "plan", f"--gin_file={tmp_path}/model.gin", "--gin.train.data=@Pipeline()", "--gin.train.loss=@CrossEntropy()",
        "--gin.Pipeline.lengths={'targets': 16}", "Pipeline.batch_size=8", "--gin.Pipeline.render=@decoder_only",
        "train.eval_every=5", "train.save_every=5", "warmup_cosine.total_steps=500",
    )  # fmt: skip
    assert "tokens a step" in told.out


def test_a_plan_is_made_from_a_configuration_without_its_data(tmp_path):
    told = succeed("plan", "--gin_file=runs/quickstart.gin", "--device=H100").out
    assert "encoder" in told and "causal MFU" in told and "fits" in told and "per device" in told
    wrong = t5x_like("plan", "--gin_file=runs/quickstart.gin", "--device=Cray")
    assert wrong.code == 2 and "figures are known of" in wrong.err


def test_activations_are_told_from_what_does_not_grow_with_rows():
    """Of 4 rows a device: with save_nothing the inputs of 12 layers at least, without it what is inside them too."""
    mesh, inputs, found = {"data": 1, "fsdp": 8}, 12 * 4 * 16 * 32 * 4, []
    for remat in ({"remat": save_nothing}, {}):
        model = functools.partial(MODEL, num_layers=12, layer_loop="scanned", **remat)
        run = run_of(mesh, model=model, batch_size=32)
        report = plan.plan(run, None)
        assert report.gradients_bytes == report.params_bytes  # both in float32, split alike
        found.append(activations.bytes_of(run, None, report))
        half = plan.plan(run_of(mesh, model=model, batch_size=16), None)
        assert found[-1] == 2 * (report.temporaries - half.temporaries)
        assert found[-1] + report.gradients_bytes < report.temporaries
    assert inputs < found[0] < 5 * inputs and found[1] > 5 * found[0]
    zero = report_of(mesh, rules=AxisRules(embed=None), optimizer_rules=AxisRules())
    assert zero.gradients_bytes < zero.params_bytes / 7
