"""Vectors that tell a token its position: added to its embedding, made as `Part(sizes, init=, rngs=)`.

`steps` is how far the position of a generated token is from that of the token before it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import Sizes, parameter


class LearnedPositions(nnx.Module):
    """One vector per place (GPT-2, BERT). A place beyond `max_length` gives NaN, not a wrong row."""

    steps = (1,)

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs, max_length: int):
        shape = (max_length, sizes.d_model)
        self.table = parameter(rngs, init.positions, shape, ("positions", "embed"), fan_in=sizes.d_model)

    def __call__(self, positions_BLP: jax.Array) -> jax.Array:
        return jnp.take(self.table[...], positions_BLP[:, :, 0], axis=0, mode="fill")


class SinusoidalPositions(nnx.Module):
    """Fixed waves in place of a table (arXiv:1706.03762, section 3.5), with no parameters.

    Laid out as tensor2tensor and fairseq do: sines in the first half of the dims, cosines in the second, and
    wavelengths (before 2 pi) from 1 to exactly 10,000. The paper's text interleaves the two and ends just below 10,000.
    An odd last dim is 0. Models that use it multiply their embeddings by sqrt(D): Embedding with scale_power 0.5.
    """

    steps = (1,)

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs):
        if sizes.d_model < 4:
            raise ValueError(f"d_model {sizes.d_model} has no room for two waves; sinusoidal positions need at least 4")
        self.d_model = sizes.d_model

    def __call__(self, positions_BLP: jax.Array) -> jax.Array:
        half = self.d_model // 2
        frequency = 10_000.0 ** (-np.arange(half, dtype=np.float32) / (half - 1))
        # Not an einsum: on TPU it would round the angle to bfloat16.
        angle_BLC = positions_BLP[:, :, :1].astype(jnp.float32) * frequency[None, None]
        waves_BLD = jnp.concatenate([jnp.sin(angle_BLC), jnp.cos(angle_BLC)], axis=-1)
        return jnp.pad(waves_BLD, ((0, 0), (0, 0), (0, self.d_model % 2)))


class BlockPositions(nnx.Module):
    """GLM's two positions, each with a learned table, added up (arXiv:2103.10360, section 2.2).

    positions[..., 0]   place in the text; a token of a blanked span has the place of the span's mask
    positions[..., 1]   place in the span, from 1; 0 outside spans

    A place beyond `max_length`, or beyond `max_block_length` in a span, gives NaN, not a wrong row.
    """

    steps = (0, 1)  # further into its span

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs, max_length: int, max_block_length: int):
        D, axes = sizes.d_model, ("positions", "embed")
        self.table = parameter(rngs, init.positions, (max_length, D), axes, fan_in=D)
        self.block_table = parameter(rngs, init.positions, (max_block_length, D), axes, fan_in=D)

    def __call__(self, positions_BLP: jax.Array) -> jax.Array:
        if positions_BLP.shape[2] != 2:
            raise ValueError(
                f"a batch with {positions_BLP.shape[2]} position(s) a token: BlockPositions reads 2, as an objective "
                "with blanks gives them (place in the text, place in the span); for 1 use LearnedPositions"
            )
        places_BLD = jnp.take(self.table[...], positions_BLP[:, :, 0], axis=0, mode="fill")
        return places_BLD + jnp.take(self.block_table[...], positions_BLP[:, :, 1], axis=0, mode="fill")
