"""Which token comes next: `sample(keys_B, logits_BV) -> tokens_B`, exact, each row with its own key.

Temperature is applied first, then top-k, then top-p of what is left, as in Hugging Face.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# sample(keys [B], logits float32 [B, V]) -> tokens int32 [B]
SampleFn = Callable[[jax.Array, jax.Array], jax.Array]


def greedy(keys_B: jax.Array, logits_BV: jax.Array) -> jax.Array:
    """The likeliest token; the lowest id among equals."""
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws from softmax(logits / temperature), cut to the likeliest tokens.

    temperature  0 is greedy; one number, or one per row [B]
    top_k        only the k likeliest tokens; None is all of them; one number, or one per row [B]
    top_p        only the fewest likeliest tokens whose probability reaches p (arXiv:1904.09751); one number, or [B]
    """

    temperature: float | np.ndarray | jax.Array = 1.0
    top_k: int | np.ndarray | jax.Array | None = None
    top_p: float | np.ndarray | jax.Array = 1.0

    def __post_init__(self):
        # Traced values cannot be looked at; numbers and NumPy arrays can.
        if self.top_k is not None and not isinstance(self.top_k, jax.Array) and np.any(self.top_k < 1):
            raise ValueError(f"top_k {self.top_k} keeps no token; use None for all, or 1 or more")
        if not isinstance(self.temperature, jax.Array) and np.any(self.temperature < 0):
            raise ValueError(f"temperature {self.temperature} is negative; use 0 for greedy, or more")
        if not isinstance(self.top_p, jax.Array) and not np.all((self.top_p > 0) & (self.top_p <= 1)):
            raise ValueError(f"top_p {self.top_p} is not in (0, 1]; use 1 to keep all tokens")

    def __call__(self, keys_B: jax.Array, logits_BV: jax.Array) -> jax.Array:
        temperature_B = jnp.broadcast_to(jnp.asarray(self.temperature, jnp.float32), logits_BV.shape[:1])
        top_p_B = jnp.broadcast_to(jnp.asarray(self.top_p, jnp.float32), logits_BV.shape[:1])
        top_k = logits_BV.shape[1] if self.top_k is None else self.top_k
        top_k_B = jnp.broadcast_to(jnp.asarray(top_k, jnp.int32), logits_BV.shape[:1])
        draw = jax.vmap(lambda key, logits, t, k, p: draw_row(key, logits, temperature=t, top_k=k, top_p=p))
        return draw(keys_B, logits_BV, temperature_B, top_k_B, top_p_B)


def draw_row(
    key: jax.Array, logits_V: jax.Array, *, temperature: jax.Array, top_k: jax.Array, top_p: jax.Array
) -> jax.Array:
    """One token of one row. The logits are sorted once; the draw is made among ranks."""
    token_at_rank_V = jnp.argsort(-logits_V, stable=True)
    rank_V = jnp.arange(logits_V.shape[0])
    scaled_V = logits_V[token_at_rank_V].astype(jnp.float32)
    scaled_V = (scaled_V - scaled_V[0]) / jnp.where(temperature > 0, temperature, 1.0)
    scaled_V = jnp.where(rank_V < top_k, scaled_V, -jnp.inf)
    probability_V = jax.nn.softmax(scaled_V)
    before_V = jnp.cumsum(probability_V) - probability_V  # a token stays if those above it do not reach top_p
    kept_V = ((before_V < top_p) | (top_p >= 1.0)) & ((rank_V == 0) | (temperature > 0))
    rank = jax.random.categorical(key, jnp.where(kept_V, scaled_V, -jnp.inf))
    return token_at_rank_V[rank].astype(jnp.int32)
