"""Schedule-Free AdamW (Defazio et al., arXiv:2405.15682), and which parameters a run with it is judged by.

y   what is trained and saved as the parameters: gradients are taken there
z   where AdamW without momentum walks; kept in the optimizer's state
x   a running mean of z: what is evaluated, exported and continued. y = b1 * x + (1 - b1) * z, so it is not kept
"""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import optax
from optax.contrib import ScheduleFreeState


def schedule_free_adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """AdamW whose rate is warmed up and then stays; an average takes the place of the decay.

    As the authors' AdamWScheduleFree: decay acts on y, z weighs in the mean by the square of the largest rate so far.
    State is as large as AdamW's. `mask` says what decays, as Optax's adamw takes it.
    """
    if not 0 < b1 <= 1:
        raise ValueError(f"b1 {b1} must be above 0 and at most 1: it is the share of x in y")

    def rate_of_next(count):  # Optax counts the weights of the mean from 1 and the updates from 0
        return learning_rate(count - 1)

    base = optax.chain(
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.contrib.schedule_free(base, rate_of_next if callable(learning_rate) else learning_rate, b1)


def evaluated(params: dict[str, jax.Array], opt_state: Any) -> dict[str, jax.Array]:
    """x, where some part of the optimizer is schedule-free; of all other parameters they themselves."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ScheduleFreeState))
    for node in nodes:
        if isinstance(node, ScheduleFreeState):
            walked = {name: z for name, z in node.z.items() if not isinstance(z, optax.MaskedNode)}
            check_whole(walked, params)
            walked = {name: on_device(z, params[name]) for name, z in walked.items()}
            params = params | averages({name: params[name] for name in walked}, walked, node.b1)
    return params


def on_device(z: jax.Array, beside: jax.Array) -> jax.Array:
    """z may wait in host memory."""
    kind = beside.sharding.memory_kind
    return z if z.sharding.memory_kind == kind else jax.device_put(z, z.sharding.with_memory_kind(kind))


@jax.jit
def averages(y: dict[str, jax.Array], z: dict[str, jax.Array], b1: jax.Array) -> dict[str, jax.Array]:
    return {name: ((y[name] - (1.0 - b1) * z[name]) / b1).astype(y[name].dtype) for name in y}


def check_whole(z: dict[str, Any], params: dict[str, jax.Array]) -> None:
    for name, one in z.items():
        if getattr(one, "shape", None) != params[name].shape:
            raise ValueError(
                f"schedule_free_adamw keeps weights in its state, and those of {name} are compressed: leave "
                "eight_bit_state away"
            )


class Beside(NamedTuple):
    """The names of two saved arrays."""

    z: str
    b1: str


def saved_beside(names: Collection[str]) -> dict[str, Beside]:
    """Of a checkpoint's arrays: what x is computed from, for each parameter that has an x of its own."""
    found, names = {}, set(names)
    for name in sorted(names):
        match = re.match(r"(opt_state/(?:.*?/)??)z/(.+)", name)
        if match and f"params/{match[2]}" in names and {f"{match[1]}b1", f"{match[1]}max_lr"} <= names:
            found[match[2]] = Beside(name, f"{match[1]}b1")
    return found
