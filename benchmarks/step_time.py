"""Seconds per step: our train step against plain JAX, scanned against unrolled layers, the loop against the bare step.

python benchmarks/step_time.py [--rounds 15] [--steps 20] [--output docs/results.md]

The two of a pair take turns of a few steps each in one process, so both meet the same machine; the ratio is the median
of the ratios of the turns.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console

from benchmarks import plain_models, record, workloads
from benchmarks.pipeline_ours import write_prepared
from t5x_like import losses
from t5x_like.data import rendering
from t5x_like.data.pipeline import Pipeline
from t5x_like.features import Features
from t5x_like.metrics.writers import open_log
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.entry import Entry
from t5x_like.models.heads import TiedHead
from t5x_like.models.initializers import gpt2_init
from t5x_like.models.layers import LayerNorm, Mlp
from t5x_like.models.parameters import split
from t5x_like.models.positions import LearnedPositions
from t5x_like.optimizers.clipping import clipped
from t5x_like.optimizers.param_groups import AllExcept
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train import checkpoints
from t5x_like.train.loop import Cadence, Loop, enter_folder
from t5x_like.train.progress import RunProgress
from t5x_like.train.setup import plan_run
from t5x_like.train.state import TrainState
from t5x_like.train.step import make_train_step

PACKAGES = ["jax", "jaxlib", "flax", "optax", "numpy"]
NUM_LAYERS = {"gpt": 4, "t5": 2}
VOCAB_SIZE = {"gpt": 65, "t5": 2176}
GPT_LENGTH, GPT_ROWS = 64, 12
T5_LENGTHS, T5_ROWS = {"inputs": 128, "targets": 64}, 16
OPTIMIZER = clipped(optax.adamw(1e-3, b2=0.99, weight_decay=0.1, mask=AllExcept()))
BYTES_VOCAB_SIZE = 384  # of the loop's model: 259 and the extra ids, rounded up

nanogpt_norm = functools.partial(LayerNorm, use_bias=False)
# nanoGPT's recipe for a CPU
gpt = functools.partial(
    Decoder,
    num_layers=NUM_LAYERS["gpt"],
    d_model=128,
    num_heads=4,
    d_ff=512,
    entry=functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=GPT_LENGTH)),
    layers=functools.partial(Block, norm=nanogpt_norm, mlp=functools.partial(Mlp, activation="gelu")),
    final_norm=nanogpt_norm,
    head=TiedHead,
    init=gpt2_init,
)
# the model of configs/runs/quickstart.gin
t5 = functools.partial(
    EncoderDecoder,
    num_encoder_layers=NUM_LAYERS["t5"],
    num_decoder_layers=NUM_LAYERS["t5"],
    d_model=128,
    num_heads=4,
    head_dim=32,
    d_ff=256,
)


class Runner:
    """`run(steps)` takes so many steps on one batch and returns its seconds; the state lives on between the calls."""

    def __init__(self, step: Callable, state):
        self._step, self.state, self.loss = step, state, None

    def run(self, steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            self.state, metrics = self._step(self.state)
        jax.block_until_ready((self.state, metrics))
        seconds = time.perf_counter() - began
        self.loss = float(metrics["loss"])
        return seconds


def packed_side(rng, vocab_size: int, rows: int, length: int, *, segments: int, causal: bool) -> Features:
    """Random tokens in `segments` equal segments a row."""
    place = np.broadcast_to(np.arange(length), (rows, length)).astype(np.int32)
    size = length // segments
    return Features(
        tokens=rng.integers(1, vocab_size, (rows, length), np.int32),
        targets=rng.integers(1, vocab_size, (rows, length), np.int32) if causal else None,
        loss_weights=np.ones((rows, length), np.float32) if causal else None,
        segment_ids=place // size + 1,
        positions=(place % size)[..., None],
        attn_order=place % size if causal else np.zeros_like(place),
    )


def gpt_batch() -> Features:
    rng = np.random.default_rng(0)
    return packed_side(rng, VOCAB_SIZE["gpt"], GPT_ROWS, GPT_LENGTH, segments=1, causal=True)


def t5_batch() -> Features:
    rng = np.random.default_rng(0)
    encoder, decoder = (
        packed_side(rng, VOCAB_SIZE["t5"], T5_ROWS, T5_LENGTHS[side], segments=2, causal=side == "targets")
        for side in ("inputs", "targets")
    )
    return decoder._replace(encoder=encoder)


def ours(model: Callable, batch: Features) -> Runner:
    graphdef, params, _ = split(model(rngs=nnx.Rngs(params=0)))
    step = make_train_step(graphdef, losses.CrossEntropy(), OPTIMIZER, num_microbatches=1)
    jitted = jax.jit(step, donate_argnums=0)
    batch, key = jax.device_put(batch), jax.random.key(0)
    return Runner(lambda s: jitted(s, batch, key), TrainState(jnp.zeros((), jnp.int32), params, OPTIMIZER.init(params)))


def plain(model: Callable, loss: Callable, batch: Features) -> Runner:
    params = split(model(rngs=nnx.Rngs(params=0))).params

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"loss": value}

    batch = jax.device_put(batch)
    return Runner(lambda state: step(state, batch), (params, OPTIMIZER.init(params)))


class Pair(NamedTuple):
    """Seconds per step in every turn of the two."""

    name: str
    first: list[float]
    second: list[float]

    def row(self) -> list[str]:
        ratios = sorted(a / b for a, b in zip(self.first, self.second, strict=True))
        quarter = len(ratios) // 4
        spread = f"{ratios[quarter]:.3f} - {ratios[-1 - quarter]:.3f}"
        times = [f"{statistics.median(seconds) * 1e3:.2f}" for seconds in (self.first, self.second)]
        return [self.name, *times, f"{statistics.median(ratios):.3f}", spread]


def alternate(name: str, first: Runner, second: Runner, rounds: int, steps: int) -> Pair:
    """One turn each to compile, `rounds` that count; who begins alternates too."""
    losses_after = [(runner.run(3), runner.loss)[1] for runner in (first, second)]
    np.testing.assert_allclose(*losses_after, rtol=1e-3, err_msg=f"{name}: not the same model")
    turns = {first: [], second: []}
    for number in range(rounds):
        for runner in (first, second) if number % 2 else (second, first):
            turns[runner].append(runner.run(steps) / steps)
    pair = Pair(name, turns[first], turns[second])
    print(*pair.row(), file=sys.stderr)
    return pair


class TakesTurns:
    """The step of a running loop, which stops the loop's clock every `steps` calls and lets the bare step run."""

    def __init__(self, step: Callable, bare: Runner, steps: int):
        self._step, self._bare, self._steps, self._calls = step, bare, steps, 0
        self.loop_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._began = 0.0

    def __call__(self, state, batch, key):
        if self._calls % self._steps == 0:
            jax.block_until_ready(state)
            self.loop_seconds.append((time.perf_counter() - self._began) / self._steps)
            self.bare_seconds.append(self._bare.run(self._steps) / self._steps)
            self._began = time.perf_counter()
        self._calls += 1
        return self._step(state, batch, key)


def loop_against_step(rounds: int, steps: int, log_every: int) -> Pair:
    """The whole loop (data, metrics.jsonl, TensorBoard, progress) and its own step on one batch that never changes."""
    model = functools.partial(gpt, vocab_size=BYTES_VOCAB_SIZE)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        directory = pathlib.Path(temporary)
        write_prepared(directory, "single", workloads.documents("single", 1_000_000))
        lengths = {"targets": GPT_LENGTH}
        data = Pipeline(
            directory=temporary, mixture="single", lengths=lengths, batch_size=GPT_ROWS, render=rendering.decoder_only
        )
        setup = plan_run(model, OPTIMIZER, data, losses.CrossEntropy(), make_mesh(), AxisRules(), 1, None)
        key = jax.random.key(0)
        batch = setup.to_devices(next(iter(setup.rows)))
        bare = Runner(lambda state: setup.step(state, batch, key), setup.plan.create(key))
        bare.run(3)
        turns = TakesTurns(setup.step, bare, steps)
        folder = directory / "run"
        guarded = enter_folder(stack, folder, "", False)
        saver = checkpoints.Checkpoints(folder / "checkpoints", max_to_keep=1, keep_period=None)
        log = open_log(folder, resume_step=0, process_index=0)
        total = (rounds + 1) * steps + 1
        progress = RunProgress(Console(stderr=True, width=120), first_step=0, steps=total)
        batches = setup.batches_from(None)
        for opened in (saver, log, progress, batches):
            stack.callback(opened.close)
        cadence = Cadence(total, total, total, log_every)
        loop = Loop(setup._replace(step=turns), guarded, saver, log, progress, lambda params, progress: {}, cadence)
        loop.run(setup.plan.create(key), batches, key)
        num_logged = len((folder / "metrics.jsonl").read_text().splitlines())
        if num_logged < total // log_every:
            raise RuntimeError(f"the loop logged {num_logged} of {total} steps: {json.dumps(dict(setup.mesh.shape))}")
    # The first two turns held the start of the loop and its first logged steps.
    return Pair(f"gpt: whole loop, logs every {log_every} / bare step", turns.loop_seconds[2:], turns.bare_seconds[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each")
    parser.add_argument("--steps", type=int, default=20, help="steps in a turn")
    parser.add_argument("--output", help="file to which the table is appended")
    options = parser.parse_args()
    turns = options.rounds, options.steps
    gpt_65, t5_2176 = (functools.partial(m, vocab_size=VOCAB_SIZE[n]) for n, m in (("gpt", gpt), ("t5", t5)))
    plain_gpt = functools.partial(plain_models.gpt_loss, num_layers=NUM_LAYERS["gpt"])
    plain_t5 = functools.partial(plain_models.t5_loss, num_layers=NUM_LAYERS["t5"])
    scanned = functools.partial(gpt_65, layer_loop="scanned")
    pairs = [
        alternate(
            "gpt: our step / plain JAX", ours(gpt_65, gpt_batch()), plain(gpt_65, plain_gpt, gpt_batch()), *turns
        ),
        alternate("t5: our step / plain JAX", ours(t5_2176, t5_batch()), plain(t5_2176, plain_t5, t5_batch()), *turns),
        alternate("gpt: scanned / unrolled", ours(scanned, gpt_batch()), ours(gpt_65, gpt_batch()), *turns),
        loop_against_step(*turns, log_every=1),
        loop_against_step(*turns, log_every=10),
    ]
    header = ["pair", "first, ms / step", "second, ms / step", "ratio", "half of the ratios"]
    text = f"Step time, medians of {options.rounds} turns of {options.steps} steps; {record.provenance(PACKAGES)}\n\n"
    record.publish(text + record.table(header, [pair.row() for pair in pairs]), options.output)


if __name__ == "__main__":
    main()
