"""The same losses on every mesh, packed rows and all. The whole table is made by benchmarks/mesh_families.py."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest

from t5x_like.blockwise_cross_entropy import BlockwiseCrossEntropy
from t5x_like.losses import ChunkedCrossEntropy
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block
from t5x_like.models.eight_bit import EightBit
from t5x_like.models.layers import GatedMlp
from t5x_like.models.rotary import Rotary
from t5x_like.partitioning.axis_rules import AxisRules, batch_sharding
from t5x_like.partitioning.stages import pipelined
from t5x_like.planning.collectives import collectives_of
from tests.partitioning import mesh_runs


class Row(NamedTuple):
    family: str
    sizes: dict[str, int]
    rules: AxisRules = AxisRules()
    changes: dict[str, Any] = {}  # noqa: RUF012  read only


MESHES = {
    "MoE, expert x tensor, rows split between products": Row(
        "moe", {"expert": 4, "tensor": 2}, AxisRules(length=("context", "tensor"), embed=("fsdp", "expert"))
    ),
    "T5, 2 rounds of 2 stages, x data x context": Row(
        "t5",
        {"stage": 2, "data": 2, "context": 2},
        AxisRules(vocab=("stage", "tensor"), vocab_activation=("stage", "tensor")),
        {"layer_loop": pipelined(num_microbatches=4, num_rounds=2)},
    ),
}


@pytest.mark.parametrize("name", MESHES)
def test_twenty_steps_on_packed_rows_are_those_of_one_device(name):
    row = MESHES[name]
    batches = mesh_runs.batches_of(row.family, 20)
    model = mesh_runs.model_of(row.family, **row.changes)
    found = mesh_runs.losses(model, batches, sizes=row.sizes, rules=row.rules)
    np.testing.assert_allclose(found, mesh_runs.losses(mesh_runs.model_of(row.family), batches), rtol=1e-4)
    assert np.ptp(found) > 0.01  # it learns, so a wrong gradient would show


@pytest.mark.parametrize("types", ["float8", "int8"])
def test_products_in_8_bits_are_on_a_mesh_what_they_are_on_one_device(types):
    """To 1e-3: where a sum in another order moves a number over the edge between two codes, it is a code further."""
    matmul = EightBit(types)
    attention = functools.partial(Attention, rotary=Rotary, matmul=matmul)
    layers = functools.partial(Block, attention=attention, mlp=functools.partial(GatedMlp, matmul=matmul))
    model, batches = mesh_runs.model_of("llama", layers=layers), mesh_runs.batches_of("llama", 20)
    found = mesh_runs.losses(model, batches, sizes={"data": 2, "fsdp": 2, "tensor": 2})
    np.testing.assert_allclose(found, mesh_runs.losses(model, batches), rtol=1e-3)
    assert np.ptp(found) > 0.01


def test_tokens_travel_to_experts_and_back_and_are_never_gathered():
    """The slots of 2,048 tokens are 2 MiB wide in d_model and 4 in d_ff; a kernel of all experts is 256 KiB."""
    model = mesh_runs.model_of("moe", num_layers=1, d_model=64, d_ff=128)
    mesh, plan, step = mesh_runs.set_up(model, sizes={"fsdp": 4, "expert": 2})
    rows = mesh_runs.batches_of("moe", 1, rows=32, length=64)[0]
    places = batch_sharding(mesh, AxisRules(), 32)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=places), rows)
    sent = collectives_of(step.lower(plan.abstract, batch, jax.random.key(0)).compile().as_text(), mesh)
    assert max(one.bytes for one in sent if one.kind == "all-gather") <= 8 * 64 * 128 * 4
    assert any(one.kind == "all-to-all" and one.axes == "expert" for one in sent)


@pytest.mark.parametrize("sizes", [{"fsdp": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "context": 2}])
@pytest.mark.parametrize("loss", [ChunkedCrossEntropy(chunk_size=3), BlockwiseCrossEntropy(block_size=7)])
def test_a_loss_in_pieces_is_that_of_one_device_and_of_all_logits(sizes, loss):
    batches, optimizer = mesh_runs.batches_of("llama", 5), optax.sgd(1.0)
    model = mesh_runs.model_of("llama", num_layers=1)
    found = mesh_runs.losses(model, batches, sizes=sizes, optimizer=optimizer, loss=loss)
    np.testing.assert_allclose(found, mesh_runs.losses(model, batches, optimizer=optimizer), rtol=1e-4)
    assert np.ptp(found) > 0.01
