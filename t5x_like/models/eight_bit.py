"""Products of activations and parameters in 8 bits, forward and backward, by qwix.

  Attention.matmul = @EightBit()
  GatedMlp.matmul = @EightBit()
  EightBit.types = 'float8'

Parameters, their gradients' sum and the optimizer stay as they are: both factors are rounded where they meet, to what
their largest value makes of 8 bits. So are gradients, in a type with more exponent (arXiv:2209.05433, section 3).
It pays where a device multiplies 8 bits faster: float8 on GPUs since Hopper and Ada, int8 on TPUs since v5e.
The softmax of attention, norms, experts, embedding and head are not touched.
"""

import dataclasses
import difflib
import functools
from typing import NamedTuple

import jax
import qwix


class Types(NamedTuple):
    values: str
    gradients: str


TYPES = {"float8": Types("float8_e4m3fn", "float8_e5m2"), "int8": Types("int8", "int8")}
SCALES = ("channel", "tensor")


@dataclasses.dataclass(frozen=True)
class EightBit:
    """`x` [..., I] times `kernel` [I, ...], in x's type.

    scale_per "channel" is one scale for each token and for each column of the kernel, as qwix has it for training;
    "tensor" is one for all, which costs less and is coarser.
    """

    types: str = "float8"
    scale_per: str = "channel"

    def __post_init__(self):
        for name, known in (("types", TYPES), ("scale_per", SCALES)):
            value = getattr(self, name)
            if value not in known:
                nearest = difflib.get_close_matches(value, known, n=1, cutoff=0.0)[0]
                raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}; nearest is {nearest!r}")

    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (per_channel if self.scale_per == "channel" else per_tensor)(x, kernel, TYPES[self.types])


def contract(x: jax.Array, dims_x: range, y: jax.Array, dims_y: range) -> jax.Array:
    return qwix.dot_general(x, y, ((tuple(dims_x), tuple(dims_y)), ((), ())))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def per_channel(x: jax.Array, kernel: jax.Array, types: Types) -> jax.Array:
    return per_channel_forward(x, kernel, types)[0]


def per_channel_forward(x: jax.Array, kernel: jax.Array, types: Types):
    last = x.ndim - 1
    x8 = qwix.quantize(x, types.values, channelwise_axes=range(last))
    kernel8 = qwix.quantize(kernel, types.values, channelwise_axes=range(1, kernel.ndim))
    return contract(x8, range(last, x.ndim), kernel8, range(1)), (x8, kernel8)


def per_channel_backward(types: Types, factors, dy: jax.Array):
    """A scale that differs within a sum cannot be taken out of it: it goes into `dy` before that is rounded."""
    x8, kernel8 = factors
    tokens, columns = range(x8.ndim - 1), range(x8.ndim - 1, dy.ndim)
    dy8 = qwix.quantize(
        dy * kernel8.scale.reshape((1,) * len(tokens) + kernel8.shape[1:]), types.gradients, channelwise_axes=tokens
    )
    dx = contract(dy8, columns, kernel8.qvalue, range(1, kernel8.ndim))
    scale = x8.scale.reshape(x8.shape[:-1] + (1,) * len(columns))
    dy8 = qwix.quantize(dy * scale, types.gradients, channelwise_axes=columns)
    return dx, contract(x8.qvalue, tokens, dy8, tokens)


per_channel.defvjp(per_channel_forward, per_channel_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def per_tensor(x: jax.Array, kernel: jax.Array, types: Types) -> jax.Array:
    return per_tensor_forward(x, kernel, types)[0]


def per_tensor_forward(x: jax.Array, kernel: jax.Array, types: Types):
    x8, kernel8 = qwix.quantize(x, types.values), qwix.quantize(kernel, types.values)
    return contract(x8, range(x.ndim - 1, x.ndim), kernel8, range(1)), (x8, kernel8)


def per_tensor_backward(types: Types, factors, dy: jax.Array):
    x8, kernel8 = factors
    tokens, columns = range(x8.ndim - 1), range(x8.ndim - 1, dy.ndim)
    dy8 = qwix.quantize(dy, types.gradients)
    return contract(dy8, columns, kernel8, range(1, kernel8.ndim)), contract(x8, tokens, dy8, tokens)


per_tensor.defvjp(per_tensor_forward, per_tensor_backward)
