"""Runs of a few steps on any mesh: small families on packed rows, without dropout. Benchmarks use them too."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from t5x_like.features import Features
from t5x_like.losses import CrossEntropy
from t5x_like.models.decoder import Decoder, llama_layer
from t5x_like.models.encoder import Encoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.mixture_of_experts import MixtureOfExperts, row_balance
from t5x_like.models.mixture_of_experts_dispatch import with_capacity
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from t5x_like.train.state import StatePlan, plan_state
from t5x_like.train.step import Gradients, Loss, accumulated, make_train_step

V, L, ROWS = 64, 16, 8
SIZES = {"vocab_size": V, "d_model": 16, "num_heads": 8, "head_dim": 4, "d_ff": 32, "layer_loop": "scanned"}
roomy = functools.partial(with_capacity, capacity_factor=4.0)  # nothing dropped, as with dropless
moe = functools.partial(MixtureOfExperts, num_experts=8, balance=row_balance, dispatch=roomy)
moe_layer = functools.partial(llama_layer, mlp=moe)


def model_of(family: str, num_layers: int = 4, **changes) -> Callable:
    sizes = SIZES | changes
    if family == "t5":
        return functools.partial(EncoderDecoder, num_encoder_layers=num_layers, num_decoder_layers=num_layers, **sizes)
    kinds = {
        "llama": functools.partial(Decoder, num_layers=num_layers),
        "bert": functools.partial(Encoder, num_layers=num_layers),
        "moe": functools.partial(Decoder, num_layers=num_layers, layers=moe_layer),
    }
    return functools.partial(kinds[family], **sizes)


def packed_rows(family: str, rng: np.random.Generator, rows: int = ROWS, length: int = L) -> Features:
    """Rows of two to four segments of random lengths, and padding at the end."""

    def side(causal: bool):
        segments, positions = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
        for row in range(rows):
            cuts = np.sort(rng.choice(np.arange(1, length), size=3, replace=False))
            for number, (low, high) in enumerate(zip([0, *cuts[:2]], cuts, strict=True)):
                segments[row, low:high], positions[row, low:high] = number + 1, np.arange(high - low)
        tokens, targets = rng.integers(0, V, (2, rows, length), dtype=np.int32)
        weights = (segments > 0) * (rng.random((rows, length)) < 0.8).astype(np.float32)
        order = positions if causal else np.zeros_like(positions)
        return Features(tokens, targets, weights.astype(np.float32), segments, positions[..., None], order)

    batch = side(causal=family != "bert")
    return batch._replace(encoder=side(False)._replace(targets=None, loss_weights=None)) if family == "t5" else batch


class Ready(NamedTuple):
    mesh: Mesh
    plan: StatePlan
    step: Callable


def set_up(
    model: Callable,
    *,
    sizes: dict[str, int] | None = None,
    rules: AxisRules = AxisRules(),  # noqa: B008  frozen
    optimizer_rules: AxisRules | None = None,
    num_microbatches: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    gradients: Gradients = accumulated,
    loss: Loss = CrossEntropy(),  # noqa: B008  frozen
) -> Ready:
    """The step on a mesh of these sizes; None is one device."""
    sizes = sizes or {"data": 1}
    mesh = make_mesh(**{"data": 1} | sizes, devices=jax.devices()[: math.prod(sizes.values())])
    optimizer = optimizer or optax.adamw(1e-3)
    plan = plan_state(model, optimizer, mesh, rules, optimizer_rules)
    step = make_train_step(plan.graphdef, loss, optimizer, num_microbatches=num_microbatches, gradients=gradients)
    return Ready(mesh, plan, jax.jit(on_mesh(mesh, step), donate_argnums=0))


def losses(model: Callable, batches: list[Features], **how) -> np.ndarray:
    """The loss of every step; `how` as in `set_up`."""
    _, plan, step = set_up(model, **how)
    state, key, found = plan.create(jax.random.key(0)), jax.random.key(1), []
    for batch in batches:
        state, metrics = step(state, batch, key)
        found.append(float(metrics["loss"]))
    return np.array(found)


def batches_of(family: str, steps: int, **changes) -> list[Features]:
    rng = np.random.default_rng(0)
    return [packed_rows(family, rng, **changes) for _ in range(steps)]
