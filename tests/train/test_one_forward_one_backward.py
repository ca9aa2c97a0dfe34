import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.losses import CrossEntropy
from t5x_like.models.attention_bias import RelativeBuckets
from t5x_like.models.heads import TiedHead
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from t5x_like.partitioning.stages import pipelined
from t5x_like.train.one_forward_one_backward import one_forward_one_backward
from t5x_like.train.one_forward_one_backward_of_two import one_forward_one_backward_of_two
from t5x_like.train.state import plan_state
from t5x_like.train.step import accumulated, split_rows
from tests.partitioning import mesh_runs

RULES = AxisRules(vocab=("stage", "tensor"), vocab_activation=("stage", "tensor"))


def found(model, gradients, num_microbatches, family="llama", **sizes):
    """Gradients, shares and weights of one batch; a loss scale of 3 and dropout are on."""
    mesh = make_mesh(**{"data": 1} | sizes, devices=jax.devices()[: math.prod(sizes.values())])
    plan = plan_state(model, optax.sgd(1.0), mesh, RULES)
    params = plan.create(jax.random.key(0)).params
    rows = jax.tree.map(lambda x: split_rows(jnp.asarray(x), num_microbatches), mesh_runs.batches_of(family, 1)[0])
    keys = jax.random.split(jax.random.key(5), num_microbatches)
    run = functools.partial(gradients, plan.graphdef, CrossEntropy(z_loss=1e-3))
    return jax.tree.map(np.asarray, jax.jit(on_mesh(mesh, run))(params, rows, keys, jnp.float32(3)))


def test_its_gradients_are_those_of_one_microbatch_after_the_other():
    """Experts add terms of their own to the loss, a bias is read by all layers, a tied head reads the embedding."""
    model = functools.partial(mesh_runs.model_of, "moe", bias=RelativeBuckets, head=TiedHead, dropout_rate=0.1)
    expected = found(model(), accumulated, 4)
    loop = pipelined(num_microbatches=1)
    assert_same(found(model(layer_loop=loop), one_forward_one_backward, 4, stage=2, fsdp=2), expected)


def test_those_of_an_encoder_decoder_too_with_more_micro_batches_than_are_kept():
    """Biases of either stack, a head that reads the embedding of both, dropout of the encoder's output."""
    model = functools.partial(mesh_runs.model_of, "t5", num_layers=2, head=TiedHead, dropout_rate=0.1)
    expected = found(model(), accumulated, 8, family="t5")
    loop = pipelined(num_microbatches=1)
    assert_same(found(model(layer_loop=loop), one_forward_one_backward_of_two, 8, family="t5", stage=2), expected)


def assert_same(measured, expected):
    for part, values in expected._asdict().items():
        assert measured._asdict()[part].keys() == values.keys()
        for key, value in values.items():
            np.testing.assert_allclose(measured._asdict()[part][key], value, rtol=2e-4, atol=2e-6, err_msg=key)


def temporaries(gradients, num_microbatches, pieces, family="llama"):
    """Bytes of one device; a micro-batch has 2 rows. `pieces`: into which GPipe cuts the rows of a forward pass."""
    model = mesh_runs.model_of(family, d_model=64, d_ff=128, layer_loop=pipelined(num_microbatches=pieces))
    how = {"gradients": gradients, "num_microbatches": num_microbatches, "optimizer": optax.sgd(1.0)}
    ready = mesh_runs.set_up(model, sizes={"stage": 4, "data": 2}, **how)
    batch = mesh_runs.batches_of(family, 1, rows=2 * num_microbatches * pieces, length=64)[0]
    compiled = ready.step.lower(ready.plan.abstract, batch, jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_its_memory_does_not_grow_with_the_number_of_microbatches_as_gpipes_does():
    few, many = temporaries(one_forward_one_backward, 8, 1), temporaries(one_forward_one_backward, 32, 1)
    assert many < 1.1 * few
    assert temporaries(accumulated, 1, 32) > 4 * many


def test_an_encoder_decoders_does_not_grow_either():
    few, many = (temporaries(one_forward_one_backward_of_two, count, 1, "t5") for count in (16, 64))
    assert many < 1.1 * few
    assert temporaries(accumulated, 1, 64, "t5") > 3 * many


REFUSED = {
    "two stacks": ("t5", {}, "runs the layers of one stack and EncoderDecoder has 2; set train.gradients "),
    "one stack for two": (
        "llama",
        {},
        "runs the layers of an EncoderDecoder and not of Decoder; set train.gradients =",
    ),
    "rounds": ("llama", {"num_rounds": 2}, "asks for Decoder.layer_loop = @pipelined() with num_rounds 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_run_is_refused_in_one_sentence(name):
    family, rounds, message = REFUSED[name]
    model = mesh_runs.model_of(family, layer_loop=pipelined(num_microbatches=2, **rounds))
    gradients = one_forward_one_backward_of_two if name == "one stack for two" else one_forward_one_backward
    ready = mesh_runs.set_up(model, sizes={"stage": 2}, gradients=gradients, num_microbatches=4)
    with pytest.raises(ValueError) as error:
        jax.eval_shape(ready.step, ready.plan.abstract, mesh_runs.batches_of(family, 1)[0], jax.random.key(0))
    assert message in str(error.value)
