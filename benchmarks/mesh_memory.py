"""What the compiler plans per device: pipelines by the number of micro-batches, attention by devices and length.

  python -m benchmarks.mesh_memory --output docs/results.md

8 simulated devices; shapes only, nothing is computed.
"""

import argparse
import os

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import record
from t5x_like.models.attention_kernels import Scores, Visible
from t5x_like.models.chunked_attention import chunked
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layer_loops import save_everything, save_nothing
from t5x_like.models.ring_attention import balanced_ring, ring
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from t5x_like.partitioning.stages import pipelined
from t5x_like.train.one_forward_one_backward import one_forward_one_backward
from tests.partitioning import mesh_runs

SCHEDULES = ("GPipe", "GPipe, save_nothing", "1F1B")
MICROBATCHES = (4, 8, 16, 32)
ROW = {"query_chunk": 256, "key_chunk": 256}
KERNELS = {"keys gathered": chunked, "ring": ring, "balanced ring": balanced_ring}
LENGTHS = ((2, 4096), (4, 8192), (8, 16384), (8, 32768))  # devices, length


def mebibytes(compiled) -> str:
    return f"{compiled.memory_analysis().temp_size_in_bytes / 2**20:.1f}"


def pipeline_step(schedule: str, num_microbatches: int) -> str:
    """A Llama of 4 layers, width 128, on stage 4 x data 2; micro-batches of 2 rows of 256 places."""
    is_1f1b, remat = schedule == "1F1B", save_everything if schedule == "GPipe" else save_nothing
    layers = {"layer_loop": pipelined(num_microbatches=1 if is_1f1b else num_microbatches), "remat": remat}
    model = mesh_runs.model_of("llama", d_model=128, num_heads=4, head_dim=32, d_ff=512, **layers)
    how = {"gradients": one_forward_one_backward, "num_microbatches": num_microbatches} if is_1f1b else {}
    ready = mesh_runs.set_up(model, sizes={"stage": 4, "data": 2}, optimizer=optax.sgd(1.0), **how)
    batch = mesh_runs.batches_of("llama", 1, rows=2 * num_microbatches, length=256)[0]
    return mebibytes(ready.step.lower(ready.plan.abstract, batch, jax.random.key(0)).compile())


def attention_step(kernel, num_devices: int, length: int) -> str:
    """The gradient of one row: 8 heads of 64 over 8 key heads, float32."""
    mesh = make_mesh(data=1, context=num_devices, devices=jax.devices()[:num_devices])

    def loss(q_BLNH, k_BLGH, v_BLGH, *who):
        return jnp.sum(kernel(q_BLNH, KeysValues(k_BLGH, v_BLGH), Visible(*who), Scores(), **ROW) ** 2)

    place = NamedSharding(mesh, P(None, "context"))
    arrays = [jax.ShapeDtypeStruct((1, length, 8, 64), jnp.float32, sharding=place)] * 3
    who = [jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=place)] * 6
    return mebibytes(jax.jit(jax.grad(on_mesh(mesh, loss), argnums=(0, 1, 2))).lower(*arrays, *who).compile())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="append the tables to this file")
    arguments = parser.parse_args()
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    pipelines = [[name, *(pipeline_step(name, M) for M in MICROBATCHES)] for name in SCHEDULES]
    rows = [[name, *(attention_step(kernel, *size) for size in LENGTHS)] for name, kernel in KERNELS.items()]
    of_pipelines = record.table(["MiB of temporaries", *(f"{M} micro-batches" for M in MICROBATCHES)], pipelines)
    of_rows = record.table(["MiB of temporaries", *(f"{L:,} places, {n} devices" for n, L in LENGTHS)], rows)
    record.publish(f"{record.provenance(['jax', 'flax'])}\n\n{of_pipelines}\n\n{of_rows}", arguments.output)


if __name__ == "__main__":
    main()
