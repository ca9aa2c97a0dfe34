"""What is added to attention logits by the distance between query and key.

of_rows(length)                      for whole rows [1, N, L, L]
of_places(positions_BLP, num_keys)   for queries at given places and keys at 0 ... M-1 [B, N, L, M]
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like.models.layers import Sizes


class RelativeBuckets(nnx.Module):
    """T5's learned bias per head and bucket of distance (arXiv:1910.10683, section 2.1): one table for all layers,
    or one in each (umT5).

    Distance is counted in places of the row, as in T5X: within a packed segment that is the difference of positions.
    """

    def __init__(
        self, sizes: Sizes, *, bidirectional: bool, rngs: nnx.Rngs, num_buckets: int = 32, max_distance: int = 128
    ):
        self.bidirectional, self.num_buckets, self.max_distance = bidirectional, num_buckets, max_distance
        limit = (6.0 / (sizes.num_heads + num_buckets)) ** 0.5  # T5X: variance scaling 1.0, fan_avg, uniform
        table = jax.random.uniform(rngs.params(), (sizes.num_heads, num_buckets), jnp.float32, -limit, limit)
        self.table = nnx.Param(table, axes=("heads", "relative_buckets"))

    def of_rows(self, length: int) -> jax.Array:
        return spread_along_diagonals(self.by_distance(length), length)[None]

    def of_places(self, positions_BLP: jax.Array, num_keys: int) -> jax.Array:
        distance_BLM = jnp.arange(num_keys)[None, None, :] - positions_BLP[:, :, :1]
        return jnp.moveaxis(self.by_distance(num_keys)[:, distance_BLM + num_keys - 1], 0, 1)

    def by_distance(self, length: int) -> jax.Array:
        """[N, 2L - 1]: the bias of distances -(L - 1) ... L - 1."""
        buckets = relative_buckets(
            np.arange(-(length - 1), length),
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        return self.table[...] @ np.eye(self.num_buckets, dtype=np.float32)[:, buckets]


class Alibi(nnx.Module):
    """-slope * |query place - key place|, with a fixed slope per head and no parameters (ALiBi, arXiv:2108.12409).

    Causal: the paper's bias. Keys to the right, in an encoder or in the prefix of a prefix language model, count by
    their distance too, so both sides fade alike in every head; the paper has none of these.
    Distance is counted in places of the row: within a packed segment that is the difference of positions.
    """

    def __init__(self, sizes: Sizes, *, bidirectional: bool, rngs: nnx.Rngs):
        self.slopes = alibi_slopes(sizes.num_heads)

    def of_rows(self, length: int) -> jax.Array:
        return self.of_places(jnp.arange(length)[None, :, None], length)

    def of_places(self, positions_BLP: jax.Array, num_keys: int) -> jax.Array:
        distance_BLM = jnp.abs(jnp.arange(num_keys)[None, None, :] - positions_BLP[:, :, :1])
        slopes_N = np.asarray(self.slopes, np.float32)
        return -slopes_N[None, :, None, None] * distance_BLM[:, None].astype(jnp.float32)


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """2 ** (-8 h / N) for h = 1 ... N where N is a power of two.

    Otherwise those of the next smaller power, then every second one of the next greater power, as in the authors' code
    and in BLOOM.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    between = [2.0 ** (-4 * h / power) for h in range(1, 2 * (num_heads - power), 2)]
    return (*(2.0 ** (-8 * h / power) for h in range(1, power + 1)), *between)


def spread_along_diagonals(value_NW: jax.Array, length: int) -> jax.Array:
    """[N, L, L] whose entry (i, j) is the value of distance j - i, for values of distances -(L-1) ... L-1.

    Rows of 2L values, cut again as rows of 2L - 1, slip one place each. Unlike a gather, its gradient is no scatter.
    """
    N, W = value_NW.shape
    padded_NLW = jnp.broadcast_to(jnp.pad(value_NW, ((0, 0), (0, 1)))[:, None], (N, length, W + 1))
    slipped_NLW = padded_NLW.reshape(N, -1)[:, : length * W].reshape(N, length, W)
    return slipped_NLW[:, :, length - 1 :]


def relative_buckets(distance: np.ndarray, *, bidirectional: bool, num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of each distance (key place - query place): exact when near, logarithmic up to `max_distance`, one beyond.

    Bidirectional: the upper half of the buckets is for keys to the right. Otherwise they share bucket 0.
    """
    behind, first = -distance, 0
    if bidirectional:
        num_buckets //= 2
        first = (behind < 0) * num_buckets
        behind = np.abs(behind)
    behind = np.maximum(behind, 0)
    num_exact = num_buckets // 2
    ratio = behind.astype(np.float32) / num_exact + np.finfo(np.float32).eps  # the eps keeps log(0) out, as in T5X
    log_share = np.log(ratio) / np.float32(np.log(max_distance / num_exact))
    far = num_exact + (log_share * (num_buckets - num_exact)).astype(np.int32)
    return first + np.where(behind < num_exact, behind, np.minimum(far, num_buckets - 1))
