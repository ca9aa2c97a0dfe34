"""The same 20 steps on every mesh: small models of four families, packed rows, 8 simulated devices.

  python -m benchmarks.mesh_families --output docs/results.md
  python -m benchmarks.mesh_families --families llama --meshes "stage 4, 1F1B" --steps 3

Each cell is the largest relative difference of a step's loss from one device, whose layers are scanned; in float16 and
bfloat16 from one device in the same type, in float16 with loss scaling.
"""

import argparse
import functools
import os
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks import record
from t5x_like.models.decoder import llama_layer
from t5x_like.models.encoder import bert_layer
from t5x_like.models.encoder_decoder import t5_layer
from t5x_like.models.mixture_of_experts_dispatch import dropless
from t5x_like.models.ring_attention import balanced_ring, ring
from t5x_like.optimizers.loss_scaling import loss_scaled
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.stages import pipelined
from t5x_like.train.one_forward_one_backward import one_forward_one_backward
from t5x_like.train.one_forward_one_backward_of_two import one_forward_one_backward_of_two
from tests.partitioning import mesh_runs

LAYERS = {"t5": t5_layer, "llama": llama_layer, "bert": bert_layer, "moe": mesh_runs.moe_layer}
SEQUENCE = AxisRules(length=("context", "tensor"))
RING = AxisRules(key_length="context")
STAGES = AxisRules(vocab=("stage", "tensor"), vocab_activation=("stage", "tensor"))
BOTH = AxisRules(embed=("fsdp", "expert"))
ZERO = {"rules": AxisRules(embed=None), "optimizer_rules": AxisRules()}


class Case(NamedTuple):
    """changes: of the model; how: as in `mesh_runs.set_up`; kernel: of attention; families that it is not for."""

    sizes: dict[str, int]
    how: dict[str, Any] = {}  # noqa: RUF012  read only
    changes: dict[str, Any] = {}  # noqa: RUF012  read only
    kernel: Any = None
    without: tuple[str, ...] = ()


def gpipe(sizes: dict[str, int], num_rounds: int = 1, **changes: Any) -> Case:
    loop = pipelined(num_microbatches=4, num_rounds=num_rounds)
    return Case(sizes, {"rules": STAGES}, {"layer_loop": loop, **changes})


def one_f_one_b(sizes: dict[str, int], **changes: Any) -> Case:
    how = {"rules": STAGES, "gradients": one_forward_one_backward, "num_microbatches": 4}
    return Case(sizes, how, {"layer_loop": pipelined(num_microbatches=1), **changes})


def of_axis(axis: str, **named: Any) -> dict[str, Case]:
    return {f"{axis} {n}": Case({axis: n}, **named) for n in (2, 4, 8)}


THREE = {"fsdp": 2, "tensor": 2}
MOE_ALONE = ("t5", "llama", "bert")
DROPLESS = {"layers": functools.partial(llama_layer, mlp=functools.partial(mesh_runs.moe, dispatch=dropless))}
BFLOAT16, FLOAT16 = {"dtype": "bfloat16"}, {"dtype": "float16"}
CASES = {
    "for comparison: one device, learning rate 0": Case({"data": 1}, {"optimizer": optax.sgd(0.0)}),
    **of_axis("data"),
    **of_axis("fsdp"),
    "fsdp 8, ZeRO-1": Case({"fsdp": 8}, ZERO),
    "data 2, fsdp 2, 2 micro-batches": Case({"data": 2, "fsdp": 2}, {"num_microbatches": 2}),
    **of_axis("tensor"),
    "tensor 8, rows split between products": Case({"tensor": 8}, {"rules": SEQUENCE}),
    **of_axis("expert", without=MOE_ALONE),
    "expert 4, tensor 2": Case({"expert": 4, "tensor": 2}, without=MOE_ALONE),
    "data 2, fsdp 2, tensor 2, dropless": Case({"data": 2, **THREE}, changes=DROPLESS, without=MOE_ALONE),
    "expert 4, fsdp 2, embed over both": Case({"expert": 4, "fsdp": 2}, {"rules": BOTH}, without=MOE_ALONE),
    "expert 4, dropless": Case({"expert": 4}, changes=DROPLESS, without=MOE_ALONE),
    **{f"{name}, gathered keys": case for name, case in of_axis("context").items()},
    **{f"{name}, ring": case for name, case in of_axis("context", how={"rules": RING}, kernel=ring).items()},
    "context 8, balanced ring": Case({"context": 8}, {"rules": RING}, kernel=balanced_ring),
    "data 2, fsdp 2, tensor 2": Case({"data": 2, **THREE}),
    "fsdp 2, context 4": Case({"fsdp": 2, "context": 4}),
    "fsdp 2, tensor 2, context 2, balanced ring": Case({**THREE, "context": 2}, {"rules": RING}, kernel=balanced_ring),
    "stage 2, GPipe": gpipe({"stage": 2}),
    "stage 4, GPipe": gpipe({"stage": 4}),
    "stage 2, GPipe in 2 rounds": gpipe({"stage": 2}, num_rounds=2),
    "stage 2, 1F1B": one_f_one_b({"stage": 2}),
    "stage 4, 1F1B": one_f_one_b({"stage": 4}),
    "stage 2, fsdp 2, tensor 2, GPipe": gpipe({"stage": 2, **THREE}),
    "stage 2, fsdp 2, tensor 2, 1F1B": one_f_one_b({"stage": 2, **THREE}),
    "stage 2, context 2, balanced ring, GPipe": gpipe({"stage": 2, "context": 2})._replace(kernel=balanced_ring),
    "data 2, fsdp 2, tensor 2, bfloat16": Case({"data": 2, **THREE}, changes=BFLOAT16),
    "stage 2, fsdp 2, tensor 2, 1F1B, bfloat16": one_f_one_b({"stage": 2, **THREE}, **BFLOAT16),
    "data 2, fsdp 2, tensor 2, ZeRO-1, float16": Case({"data": 2, **THREE}, ZERO, FLOAT16),
    "stage 2, fsdp 2, tensor 2, 1F1B, float16": one_f_one_b({"stage": 2, **THREE}, **FLOAT16),
}


def with_kernel(layer: functools.partial, kernel: Any) -> functools.partial:
    """The layer, all of whose attention is computed by `kernel`."""
    parts = [name for name in ("attention", "cross_attention") if name in layer.keywords]
    return functools.partial(layer, **{name: functools.partial(layer.keywords[name], kernel=kernel) for name in parts})


@functools.cache
def on_one_device(family: str, dtype: str, steps: int) -> np.ndarray:
    model = mesh_runs.model_of(family, dtype=dtype)
    return mesh_runs.losses(model, mesh_runs.batches_of(family, steps), optimizer=optimizer_for(dtype))


def optimizer_for(dtype: str) -> optax.GradientTransformation:
    return loss_scaled(optax.adamw(1e-3)) if dtype == "float16" else optax.adamw(1e-3)


def difference(family: str, case: Case, steps: int) -> float:
    changes = case.changes
    if case.kernel is not None:
        changes = {**changes, "layers": with_kernel(LAYERS[family], case.kernel)}
    dtype = changes.get("dtype", "float32")
    how = {"sizes": case.sizes, "optimizer": optimizer_for(dtype), **case.how}
    if family == "t5" and "gradients" in how:
        how["gradients"] = one_forward_one_backward_of_two
    found = mesh_runs.losses(mesh_runs.model_of(family, **changes), mesh_runs.batches_of(family, steps), **how)
    expected = on_one_device(family, dtype, steps)
    return float(np.max(np.abs(found / expected - 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--meshes", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", help="append the table to this file")
    arguments = parser.parse_args()
    # Compiling takes nearly all of the time, so it goes without LLVM's expensive passes, as in the tests.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    rows = []
    for name in arguments.meshes:
        case = CASES[name]
        cells = [
            "-" if family in case.without else f"{difference(family, case, arguments.steps):.1e}"
            for family in arguments.families
        ]
        rows.append([name, *cells])
        print(rows[-1], flush=True)
    made = record.table(["mesh", *arguments.families], rows)
    record.publish(f"{record.provenance(['jax', 'flax', 'optax'])}\n\n{made}", arguments.output)


if __name__ == "__main__":
    main()
