"""Compiles small programs for TPUs that are not here, and prints what they hold as JSON; needs libtpu on the path.

A process of its own: once libtpu is loaded it takes over signals and prints to the terminal.
"""

import functools
import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from t5x_like.losses import ChunkedCrossEntropy
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.kernel_choice import auto
from t5x_like.models.layer_loops import save_nothing
from t5x_like.models.parameters import merge
from t5x_like.models.rotary import Rotary
from t5x_like.partitioning.axis_rules import AxisRules, batch_sharding
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from t5x_like.planning.collectives import collectives_of
from t5x_like.planning.plan import abstract_batch, topology_devices
from t5x_like.train.state import plan_params

LENGTH, ROWS = 512, 8


def decoder(order: str | None):
    """A llama of two layers."""
    attention = functools.partial(Attention, rotary=Rotary, kernel=functools.partial(auto, order=order))
    return functools.partial(
        Decoder,
        vocab_size=512,
        num_layers=2,
        d_model=512,
        num_heads=8,
        num_kv_heads=4,
        head_dim=128,
        d_ff=1024,
        layers=functools.partial(Block, attention=attention),
        dtype="bfloat16",
        layer_loop="scanned",
        remat=save_nothing,
    )


def program(topology: str, order: str | None, **axes: int) -> dict[str, int]:
    """Loss and gradient: how many kernels of our own it holds, bytes of temporaries on a chip, bytes that are sent.

    matrices: bytes in bfloat16 of all layers' matrices.
    """
    mesh, rules = make_mesh(devices=topology_devices(topology), **axes), AxisRules()
    graphdef, params = plan_params(decoder(order), mesh, rules)
    batch = abstract_batch({"targets": LENGTH}, ROWS, batch_sharding(mesh, rules, ROWS))

    def loss(params, batch):
        terms = ChunkedCrossEntropy()(merge(graphdef, params), batch, None)
        return terms["loss"].sum / terms["loss"].weight

    compiled = jax.jit(on_mesh(mesh, jax.value_and_grad(loss))).lower(params, batch).compile()
    memory, sent = compiled.memory_analysis(), collectives_of(compiled.as_text(), mesh)

    def over_fsdp(*kinds: str) -> int:
        return sum(one.bytes * one.times for one in sent if one.kind in kinds and "fsdp" in one.axes)

    return {
        "gathered": over_fsdp("all-gather"),
        "summed": over_fsdp("reduce-scatter", "all-reduce", "all-to-all"),
        "matrices": 2 * sum(param.size for param in params.values() if param.ndim > 2),
        "kernels": compiled.as_text().count('custom_call_target="tpu_custom_call"'),
        "temporaries": memory.temp_size_in_bytes,
    }


def slices_by_stage() -> list[list[int]]:
    """Of two slices: which ones the chips of each stage belong to."""
    mesh = make_mesh(devices=topology_devices("v5e:2x2", num_slices=2), data=2, stage=2, fsdp=2)
    return [sorted({chip.slice_index for chip in stage.ravel()}) for stage in mesh.devices]


if __name__ == "__main__":
    print(json.dumps(slices_by_stage()))
    print(
        json.dumps(
            {
                "v5e, fsdp 4, tensor 2": program("v5e:2x4", "causal", data=1, fsdp=4, tensor=2),
                "v5e, any order": program("v5e:2x4", None, data=1, fsdp=4, tensor=2),
            }
        )
    )
