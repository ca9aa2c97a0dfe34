"""What each kind of parallelism sends, read from the compiled step: what it is for, and no gather beyond that."""

import functools
from typing import NamedTuple

import jax
import optax
import pytest

from t5x_like.blockwise_cross_entropy import BlockwiseCrossEntropy
from t5x_like.losses import ChunkedCrossEntropy
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import llama_layer
from t5x_like.models.mixture_of_experts import MixtureOfExperts, row_balance
from t5x_like.models.ring_attention import ring
from t5x_like.models.rotary import Rotary
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.stages import pipelined
from t5x_like.planning.collectives import collectives_of
from tests.partitioning import mesh_runs
from tests.partitioning.mesh_runs import ROWS, SIZES, L, V

FLOAT = 4
ACTIVATION = FLOAT * ROWS * L * SIZES["d_model"]
KEYS = FLOAT * ROWS * L * SIZES["num_heads"] * SIZES["head_dim"]
MATRIX = FLOAT * SIZES["d_model"] * SIZES["d_ff"]
EMBEDDING = FLOAT * V * SIZES["d_model"]
NUM_EXPERTS, NUM_LAYERS = 8, 4
ring_layer = functools.partial(Block, attention=functools.partial(Attention, rotary=Rotary, kernel=ring))
dropless = functools.partial(MixtureOfExperts, num_experts=NUM_EXPERTS, balance=row_balance)
dropless_layer = functools.partial(llama_layer, mlp=dropless)


class Row(NamedTuple):
    """sends: (kind, axes, bytes at a time or None for any); largest_gather: no all-gather gives more bytes."""

    sizes: dict[str, int]
    sends: tuple[str, str, int | None]
    largest_gather: int
    rules: AxisRules = AxisRules()
    family: str = "llama"
    changes: dict = {}  # noqa: RUF012  read only


ROWS_OF_TABLE = {
    "fsdp": Row({"fsdp": 8}, ("all-gather", "fsdp", MATRIX), max(MATRIX, EMBEDDING)),  # never all layers at a time
    "sequence": Row(
        {"tensor": 8}, ("all-gather", "tensor", ACTIVATION), ACTIVATION, AxisRules(length=("context", "tensor"))
    ),
    # A routing decision is gathered; of what the experts know, nothing.
    "expert": Row({"expert": 8}, ("all-to-all", "expert", None), MATRIX * NUM_EXPERTS // 4, family="moe"),
    "a dropless mixture": Row(  # the tokens of a device stay there
        {"data": 8},
        ("all-reduce", "data", None),
        FLOAT * ROWS * L * NUM_EXPERTS,
        family="moe",
        changes={"layers": dropless_layer},
    ),
    "context": Row({"context": 8}, ("all-gather", "context", KEYS), KEYS),  # not x, not the logits
    "ring": Row(
        {"context": 8},
        ("collective-permute", "context", KEYS // 8),
        0,
        AxisRules(key_length="context"),
        changes={"layers": ring_layer},
    ),
    "stage": Row(  # one micro-batch at a time, never the parameters of another stage
        {"stage": 4},
        ("collective-permute", "stage", ACTIVATION // 4),
        0,
        changes={"layer_loop": pipelined(num_microbatches=4)},
    ),
}


@pytest.mark.parametrize("name", ROWS_OF_TABLE)
def test_a_step_sends_what_its_kind_of_parallelism_is_for_and_gathers_no_more(name):
    row = ROWS_OF_TABLE[name]
    model = mesh_runs.model_of(row.family, NUM_LAYERS, **row.changes)
    ready = mesh_runs.set_up(model, sizes=row.sizes, rules=row.rules, optimizer=optax.sgd(1.0))
    batch = mesh_runs.batches_of(row.family, 1)[0]
    found = collectives_of(
        ready.step.lower(ready.plan.abstract, batch, jax.random.key(0)).compile().as_text(), ready.mesh
    )
    kind, axes, size = row.sends
    assert [one for one in found if (one.kind, one.axes) == (kind, axes) and size in (None, one.bytes)], found
    assert [one for one in found if one.kind == "all-gather" and one.bytes > row.largest_gather] == []


def sent_with(loss):
    """By a step of a decoder over fsdp 8."""
    ready = mesh_runs.set_up(
        mesh_runs.model_of("llama", NUM_LAYERS), sizes={"fsdp": 8}, optimizer=optax.sgd(1.0), loss=loss
    )
    batch = mesh_runs.batches_of("llama", 1)[0]
    compiled = ready.step.lower(ready.plan.abstract, batch, jax.random.key(0)).compile()
    return collectives_of(compiled.as_text(), ready.mesh)


def test_the_head_is_gathered_once_and_its_gradient_summed_once_however_many_chunks_its_loss_has():
    found = sent_with(ChunkedCrossEntropy(chunk_size=L // 8))
    head = [(one.kind, one.times) for one in found if one.bytes == EMBEDDING and one.axes == "fsdp"]
    assert ("reduce-scatter", 1) in head
    assert sum(times for kind, times in head if kind == "all-gather") == 1  # the embedding is read row by row


def test_a_block_of_the_head_is_gathered_twice_and_its_gradient_summed_when_it_is_made():
    found = sent_with(BlockwiseCrossEntropy(block_size=V // 4))
    turns = {(one.kind, one.bytes): one.times for one in found if one.axes == "fsdp"}
    assert turns["all-gather", EMBEDDING // 4] == 2 * 4  # forward and backward
    assert turns["reduce-scatter", EMBEDDING // 4] == 4
    assert not {("all-gather", EMBEDDING), ("reduce-scatter", EMBEDDING)} & set(turns)
