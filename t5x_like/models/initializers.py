"""Initial values of a whole stack, as published: one function per recipe, one field per kind of parameter.

Every field is `f(key, shape, fan_in) -> float32 array`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# f(key, shape, fan_in) -> float32 array of that shape.
Initializer = Callable[[jax.Array, tuple[int, ...], int], jax.Array]

# Standard deviation of a unit normal cut at two standard deviations (as in jax.nn.initializers.variance_scaling).
TRUNCATED_STDDEV = 0.87962566103423978


class Initializers(NamedTuple):
    embedding: Initializer
    positions: Initializer
    query: Initializer
    key_value: Initializer
    attention_out: Initializer
    mlp_in: Initializer
    mlp_out: Initializer
    logits: Initializer


def normal_init(*, num_layers: int, head_dim: int, stddev: float = 0.02) -> Initializers:
    """Everything normal with one standard deviation (LLaMA as in Hugging Face: initializer_range 0.02)."""
    return Initializers(*[normal(stddev)] * len(Initializers._fields))


def gpt2_init(*, num_layers: int, head_dim: int, stddev: float = 0.02) -> Initializers:
    """Normal, and the projections into the residual stream divided by sqrt(2 * layers) (GPT-2 paper, section 2.3)."""
    into_residual = normal(stddev / (2 * num_layers) ** 0.5)
    everything = normal_init(num_layers=num_layers, head_dim=head_dim, stddev=stddev)
    return everything._replace(attention_out=into_residual, mlp_out=into_residual)


def t5_init(*, num_layers: int, head_dim: int) -> Initializers:
    """T5X's: unit normal embedding, fan-in scaled kernels; the query takes over the missing 1/sqrt(H) of the logits."""
    return Initializers(
        embedding=normal(1.0),
        positions=normal(1.0),
        query=fan_in_normal(head_dim**-0.5),
        key_value=fan_in_normal(1.0),
        attention_out=fan_in_normal(1.0),
        mlp_in=fan_in_truncated_normal,
        mlp_out=fan_in_truncated_normal,
        logits=fan_in_truncated_normal,
    )


def normal(stddev: float) -> Initializer:
    return lambda key, shape, fan_in: stddev * jax.random.normal(key, shape, jnp.float32)


def fan_in_normal(scale: float) -> Initializer:
    return lambda key, shape, fan_in: scale * fan_in**-0.5 * jax.random.normal(key, shape, jnp.float32)


def fan_in_truncated_normal(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    stddev = fan_in**-0.5 / TRUNCATED_STDDEV
    return stddev * jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32)
