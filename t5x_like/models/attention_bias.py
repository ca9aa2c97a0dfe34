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
