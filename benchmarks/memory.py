"""Memory that the compiler plans for forward and backward: attention kernels at long lengths, and cross-entropy over a
large vocabulary. Nothing is computed and no array is made: shapes alone are compiled.

python benchmarks/memory.py [--topology v5e:2x2] [--output docs/results.md]

With --topology (needs libtpu, no TPU) it compiles for one chip of that TPU, and splash attention has its rows.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import record
from t5x_like.blockwise_cross_entropy import BlockwiseCrossEntropy
from t5x_like.features import Features
from t5x_like.losses import ChunkedCrossEntropy, CrossEntropy
from t5x_like.models.attention_kernels import Scores, Visible, xla
from t5x_like.models.chunked_attention import chunked
from t5x_like.models.heads import UntiedHead
from t5x_like.models.initializers import normal_init
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import sizes_of
from t5x_like.models.parameters import merge, split
from t5x_like.models.splash_attention import splash
from t5x_like.models.stack import Hidden

HEADS, KEY_HEADS, HEAD_DIM = 8, 2, 128
ROWS, LENGTH, WIDTH, VOCAB = 4, 2048, 1024, 250_000
KERNELS = {"xla": xla, "chunked": chunked}
TPU_KERNELS = KERNELS | {"splash": functools.partial(splash, order="causal")}
LOSSES = {one.__name__: one(z_loss=1e-4) for one in (CrossEntropy, ChunkedCrossEntropy, BlockwiseCrossEntropy)}


def planned(function: Callable, arguments, device: jax.Device | None) -> int:
    """Bytes that the compiled function needs besides its arguments and results."""
    place = None if device is None else jax.sharding.SingleDeviceSharding(device)
    return jax.jit(function, in_shardings=place).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def attention(kernel: Callable, length: int, device: jax.Device | None) -> int:
    """Of one row in bfloat16, causal, and its gradients."""
    q = jax.ShapeDtypeStruct((1, length, HEADS, HEAD_DIM), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((1, length, KEY_HEADS, HEAD_DIM), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def total(q, k, v, segments, order):
        visible = Visible(segments, segments, order, order, order, order)
        return kernel(q, KeysValues(k, v), visible, Scores()).astype(jnp.float32).sum()

    return planned(jax.value_and_grad(total, argnums=(0, 1, 2)), (q, k, k, ids, ids), device)


class HeadAlone(nnx.Module):
    """A model whose last hidden states are given."""

    def __init__(self, rngs: nnx.Rngs):
        sizes = sizes_of(d_model=WIDTH, num_heads=8, num_kv_heads=None, head_dim=None, d_ff=WIDTH, dtype="bfloat16")
        init = normal_init(num_layers=1, head_dim=sizes.head_dim)
        self.head = UntiedHead(sizes, vocab_size=VOCAB, init=init, rngs=rngs)

    def hidden(self, features: Features, *, dropout_key) -> Hidden:
        return Hidden(features.tokens, {})

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        return self.head(x_BLD, None)


def cross_entropy(loss: Callable, device: jax.Device | None) -> int:
    """Of the head's product and its gradients, for given hidden states."""
    graphdef, shapes, _ = split(nnx.eval_shape(lambda: HeadAlone(nnx.Rngs(params=jax.random.key(0)))))
    x = jax.ShapeDtypeStruct((ROWS, LENGTH, WIDTH), jnp.bfloat16)
    targets = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    weights = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.float32)

    def total(params, x, targets, weights):
        batch = Features(x, targets, weights, None, None, None)
        return loss(merge(graphdef, params), batch, None)["loss"].sum

    return planned(jax.value_and_grad(total, argnums=(0, 1)), (shapes, x, targets, weights), device)


def size(measure: Callable) -> str:
    """In GB, or the compiler's sentence where it does not fit on the chip."""
    try:
        return f"{measure() / 1e9:.2f} GB"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", help="compile for one chip of this TPU: v5e:2x2, v5p:2x2x1")
    parser.add_argument("--lengths", nargs="+", type=int, default=[8192, 32768])
    parser.add_argument("--output", help="file to which the table is appended")
    options = parser.parse_args()
    device, kernels = None, KERNELS
    if options.topology:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=options.topology)
        device, kernels = topology.devices[0], TPU_KERNELS
    rows = [
        [f"attention, {length:,} places", name, size(functools.partial(attention, kernel, length, device))]
        for length in options.lengths
        for name, kernel in kernels.items()
    ]
    what = f"loss, {ROWS * LENGTH:,} tokens, vocabulary {VOCAB:,}"
    rows += [[what, name, size(functools.partial(cross_entropy, loss, device))] for name, loss in LOSSES.items()]
    shape = f"{HEADS} heads, {KEY_HEADS} key heads, head_dim {HEAD_DIM}, bfloat16; d_model {WIDTH}"
    where = f"compiled for {options.topology or 'cpu'}"
    text = f"Planned temporary memory, {where}; {shape}; {record.provenance(['jax', 'flax'])}\n\n"
    record.publish(text + record.table(["what", "how", "memory"], rows), options.output)


if __name__ == "__main__":
    main()
