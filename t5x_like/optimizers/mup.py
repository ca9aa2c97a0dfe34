"""The optimizer's half of muP (Yang et al., arXiv:2203.03466, table 8); the model's is in models/width_scaling.py."""

import re
from typing import Any

import jax
import optax

from t5x_like.optimizers.muon import NOT_HIDDEN, matrices


def mup_adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    width: int,
    base_width: int,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: Any = None,
    not_hidden: str = NOT_HIDDEN,
) -> optax.GradientTransformation:
    """AdamW whose steps in hidden matrices are base_width / width times as large.

    At the base width it is AdamW. What a step takes away by decay is learning_rate * weight_decay at every width, as in
    the authors' MuAdamW. not_hidden: parameters whose name this is found in keep their rate, as do vectors.
    """
    if width < 1 or base_width < 1:
        raise ValueError(f"width {width} and base_width {base_width} are d_model, here and where rates were tuned")
    pattern = re.compile(not_hidden)

    def scaled(updates, state, params=None):
        hidden = matrices(updates, pattern)
        factors = {name: 1.0 if axes is None else base_width / width for name, axes in hidden.items()}
        return jax.tree.map(lambda update, factor: update * factor, updates, factors), state

    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.GradientTransformation(lambda params: optax.EmptyState(), scaled),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
