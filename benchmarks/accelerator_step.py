"""The whole train step on one accelerator: tokens a second, MFU and memory, by attention kernel, remat and precision.

python benchmarks/accelerator_step.py --model llama_1b --rows 4 8 --kernels auto --remats everything matmuls nothing

Shapes are published ones: Llama-3.2-1B (bfloat16, 4,096 tokens and four documents a row) and T5 1.1 large (512
inputs, 114 targets). A case that does not fit is a row that says so. Operations are counted from the shapes: 6 per
weight of a matrix and token (the embedding's look-up not counted, the head's product counted), and 12 d_model per pair
of a query and a key and layer; `full` counts all pairs of a row, `causal` half of them.
Beside a step stands what `t5x_like plan` says of it: the longest of its bounds, and their sum.
"""

import argparse
import functools
import itertools
import pathlib
import statistics
import sys
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks import record
from t5x_like.features import Features
from t5x_like.losses import ChunkedCrossEntropy
from t5x_like.models import (
    attention_kernels,
    chunked_attention,
    cudnn_attention,
    cudnn_packed_attention,
    eight_bit,
    kernel_choice,
    layer_loops,
    layers,
    remat,
)
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.heads import TiedHead
from t5x_like.models.layers import GatedMlp
from t5x_like.models.parameters import split
from t5x_like.models.rotary import Rotary
from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.loss_scaling import loss_scaled
from t5x_like.optimizers.muon import muon
from t5x_like.optimizers.param_groups import AllExcept
from t5x_like.planning import roofline
from t5x_like.train.state import TrainState
from t5x_like.train.step import make_train_step

PACKAGES = ["jax", "flax", "optax"]
# Dense bfloat16 operations a second of one device, from its maker's data sheet.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
KERNELS = {
    "xla": attention_kernels.xla,
    "chunked": chunked_attention.chunked,
    "cudnn": cudnn_attention.cudnn,
    "auto": kernel_choice.auto,
    "packed": functools.partial(cudnn_packed_attention.cudnn_packed, max_segments=16),
}
REMATS = {
    "everything": layer_loops.save_everything,
    "matmuls": remat.keep_matmuls,
    "mlp_in": remat.KeepNamed(keep=("query", "key", "value", "mlp_in")),
    "nothing": layer_loops.save_nothing,
}
MATMULS = {
    "plain": layers.plain,
    "float8": eight_bit.EightBit(),
    "float8_tensor": eight_bit.EightBit(scale_per="tensor"),
    "int8": eight_bit.EightBit(types="int8"),
}


class Workload(NamedTuple):
    """A model and its rows. `pairs` counts query-key pairs times d_model over all layers, per row."""

    make: functools.partial
    length: int
    num_inputs: int
    pairs: float
    is_causal: bool


def llama_1b(kernel, remat_policy, matmul) -> Workload:
    kernel = functools.partial(kernel, order="causal") if kernel is KERNELS["packed"] else kernel
    attention = functools.partial(
        Attention, rotary=functools.partial(Rotary, wavelength=500000.0), kernel=kernel, matmul=matmul
    )
    model = functools.partial(
        Decoder,
        vocab_size=128256,
        num_layers=16,
        d_model=2048,
        num_heads=32,
        num_kv_heads=8,
        d_ff=8192,
        layers=functools.partial(Block, attention=attention, mlp=functools.partial(GatedMlp, matmul=matmul)),
        head=TiedHead,
        dtype="bfloat16",
        layer_loop="scanned",
        remat=remat_policy,
    )
    return Workload(model, 4096, 0, 16 * 2048 * 4096**2, True)


def t5_1_1_large(kernel, remat_policy, matmul) -> Workload:
    attention = functools.partial(Attention, logit_scale=1.0, kernel=kernel, matmul=matmul)
    mlp = functools.partial(GatedMlp, activation="gelu_tanh", matmul=matmul)
    model = functools.partial(
        EncoderDecoder,
        vocab_size=32128,
        num_encoder_layers=24,
        num_decoder_layers=24,
        d_model=1024,
        num_heads=16,
        head_dim=64,
        d_ff=2816,
        layers=functools.partial(Block, attention=attention, cross_attention=attention, mlp=mlp),
        dtype="bfloat16",
        layer_loop="scanned",
        remat=remat_policy,
    )
    inputs, targets = 512, 114
    return Workload(model, targets, inputs, 24 * 1024 * (inputs**2 + targets**2 + inputs * targets), False)


MODELS = {"llama_1b": llama_1b, "t5_1_1_large": t5_1_1_large}


def packed_rows(rows: int, length: int, vocab_size: int, *, segments: int, is_causal: bool) -> Features:
    """Random tokens in `segments` equal documents a row."""
    rng = np.random.default_rng(0)
    place = np.broadcast_to(np.arange(length), (rows, length)).astype(np.int32)
    size = length // segments
    return Features(
        tokens=rng.integers(1, vocab_size, (rows, length), np.int32),
        targets=rng.integers(1, vocab_size, (rows, length), np.int32),
        loss_weights=np.ones((rows, length), np.float32),
        segment_ids=np.minimum(place // size, segments - 1) + 1,
        positions=(place % size)[..., None],
        attn_order=place % size if is_causal else np.zeros_like(place),
    )


def batch_of(work: Workload, rows: int) -> Features:
    decoder = packed_rows(rows, work.length, 32000, segments=4, is_causal=True)
    if not work.num_inputs:
        return decoder
    encoder = packed_rows(rows, work.num_inputs, 32000, segments=4, is_causal=False)
    return decoder._replace(encoder=encoder._replace(targets=None, loss_weights=None))


def operations(work: Workload, shapes: dict, rows: int) -> tuple[float, float]:
    """Of one step: (all pairs, half of the pairs)."""
    total = 0.0
    for name, shape in shapes.items():
        tokens = work.num_inputs if name.startswith("encoder/") or "cross_attention/key" in name else work.length
        tokens = work.num_inputs if "cross_attention/value" in name else tokens
        if name.startswith("embedding/"):
            is_head = "head/kernel" not in shapes  # tied: the table is the head's matrix too
            tokens = work.length * is_head
        total += 0.0 if name.endswith("scale") else 6.0 * np.prod(shape.shape) * tokens
    pairs = 12.0 * work.pairs
    return rows * (total + pairs), rows * (total + pairs / (2 if work.is_causal else 1))


adamw = optax.adamw(3e-4, b2=0.95, weight_decay=0.1, mask=AllExcept())
# Name: (optimizer, dtype of the computation)
OPTIMIZERS = {
    "adamw": (clipped(adamw), "bfloat16"),
    "muon": (clipped(muon(3e-4, weight_decay=0.1)), "bfloat16"),
    "adamw_fp16": (loss_scaled(clipped(adamw)), "float16"),
    "sgd": (clipped(optax.sgd(3e-4)), "bfloat16"),
}


def measure(
    model: str,
    kernel: str,
    policy: str,
    matmul: str,
    rows: int,
    steps: int,
    chunk_size: int,
    optimizer: str,
    layer_loop: str,
) -> list[str]:
    work = MODELS[model](KERNELS[kernel], REMATS[policy], MATMULS[matmul])
    optimizer, dtype = OPTIMIZERS[optimizer]

    def make(key):
        return work.make(rngs=nnx.Rngs(params=key), dtype=dtype, layer_loop=layer_loop)

    graphdef, shapes, _ = split(nnx.eval_shape(lambda: make(jax.random.key(0))))
    step = make_train_step(graphdef, ChunkedCrossEntropy(chunk_size=chunk_size), optimizer, num_microbatches=1)

    def create(key):
        params = split(make(key)).params
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    batch, key = jax.device_put(batch_of(work, rows)), jax.random.key(0)
    state = jax.eval_shape(create, key)
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch, key).compile()
    compile_seconds = time.perf_counter() - began
    planned = compiled.memory_analysis()
    gigabytes = (planned.argument_size_in_bytes + planned.temp_size_in_bytes) / 1e9
    state = jax.jit(create)(key)
    seconds = []
    for _ in range(steps + 3):
        began = time.perf_counter()
        state, metrics = compiled(state, batch, key)
        loss = float(metrics["loss"])  # waits for the device
        seconds.append(time.perf_counter() - began)
    one = statistics.median(seconds[3:])
    full, causal = operations(work, shapes, rows)
    kind = jax.devices()[0].device_kind
    peak = next((rate for name, rate in PEAKS.items() if name in kind), None)
    shares = [f"{ops / one / peak:.1%}" if peak else "-" for ops in (causal, full)]
    tokens = rows * (work.length + work.num_inputs)
    device = roofline.device_named(kind)
    touched = planned.argument_size_in_bytes + 2 * planned.temp_size_in_bytes  # as `t5x_like plan` counts
    predicted = device and roofline.seconds_of(device, roofline.Work(full, causal), 1, touched, [])
    return [
        f"{one * 1e3:.1f}",
        f"{predicted.least * 1e3:.0f} to {predicted.most * 1e3:.0f}" if predicted else "-",
        f"{tokens / one:,.0f}",
        *shares,
        f"{gigabytes:.1f}",
        f"{compile_seconds:.0f}",
        f"{loss:.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="llama_1b")
    parser.add_argument("--rows", type=int, nargs="+", default=[8])
    parser.add_argument("--kernels", choices=KERNELS, nargs="+", default=["auto"])
    parser.add_argument("--remats", choices=REMATS, nargs="+", default=list(REMATS))
    parser.add_argument("--matmuls", choices=MATMULS, nargs="+", default=["plain"])
    parser.add_argument("--optimizers", choices=OPTIMIZERS, nargs="+", default=["adamw"])
    parser.add_argument("--layer_loop", choices=["scanned", "unrolled"], default="scanned")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--chunk_size", type=int, default=512, help="places of each row whose logits exist at a time")
    parser.add_argument("--output", help="file to which the table is appended")
    options = parser.parse_args()
    lines = []
    for case in itertools.product(options.rows, options.kernels, options.remats, options.matmuls, options.optimizers):
        rows, kernel, policy, matmul, optimizer = case
        sizes = rows, options.steps, options.chunk_size, optimizer, options.layer_loop
        try:
            figures = measure(options.model, kernel, policy, matmul, *sizes)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            figures = [str(error).splitlines()[0][:80], *[""] * 7]
        lines.append([*map(str, case), *figures])
        print(*lines[-1], file=sys.stderr, flush=True)
    header = [
        "rows",
        "kernel",
        "kept",
        "matmuls",
        "optimizer",
        "ms / step",
        "planned, ms",
        "tokens / s",
        "MFU causal",
        "MFU full",
        "planned GB",
        "compile, s",
        "loss",
    ]
    device = jax.devices()[0].device_kind
    text = f"{options.model} on {device}, medians of {options.steps} steps; {record.provenance(PACKAGES)}\n\n"
    record.publish(text + record.table(header, lines), options.output)


if __name__ == "__main__":
    main()
