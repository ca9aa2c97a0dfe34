"""Rotary positions (arXiv:2104.09864): queries and keys are turned by their positions, pair by pair."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like.models.rotary_scaling import Scaled, with_wavelength

# sin and cos, each float32 [B, L, 1, R/2], where R of a head's dims are turned
Rotation = tuple[jax.Array, jax.Array]


class Rotary(nnx.Module):
    """The rotation of each place, pairing dimension i with i + R/2 as LLaMA does.

    wavelength   of the slowest pair, in positions, before 2 pi
    share        of a head's dims that are turned, the first ones (GPT-NeoX: 0.25)
    scaling      changes the frequencies for longer texts: a function of `rotary_scaling`, or None
    """

    def __init__(
        self, head_dim: int, *, wavelength: float = 10_000.0, share: float = 1.0, scaling: Callable | None = None
    ):
        num_turned = int(head_dim * share)
        if num_turned % 2 or not num_turned:
            raise ValueError(
                f"{num_turned} dims of a head of {head_dim} are turned in pairs: make head_dim times share even"
            )
        scaled = Scaled(with_wavelength(wavelength, num_turned // 2), 1.0, {"rope_type": "default"})
        if scaling is not None:
            scaled = scaling(scaled.frequencies, wavelength=wavelength)
        self.wavelength, self.share, self.attention_factor = wavelength, share, scaled.attention_factor
        self.rope = None if scaled.rope is None else tuple(scaled.rope.items())
        self.frequencies = tuple(scaled.frequencies.tolist())  # numbers, not an array: they are code, not parameters

    def __call__(self, positions_BLP: jax.Array) -> Rotation:
        frequency = np.asarray(self.frequencies, np.float32)
        # Not an einsum: on TPU it would round the angle to bfloat16.
        angle = positions_BLP[:, :, :1, None].astype(jnp.float32) * frequency[None, None, None]
        return jnp.sin(angle) * self.attention_factor, jnp.cos(angle) * self.attention_factor


def rotate(x_BLNH: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns each pair (i, i + R/2) by its angle, in float32; dims from R on stay as they are."""
    sin, cos = rotation
    num_turned = 2 * sin.shape[-1]
    a, b = jnp.split(x_BLNH[..., :num_turned].astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BLNH.dtype)
    return jnp.concatenate([turned, x_BLNH[..., num_turned:]], axis=-1)
