"""The parts of a stack that know nothing of attention: projections, norms, feed-forward, embedding, dropout.

Every part is made as `Part(sizes, ..., rngs=...)` and called on activations; parameters are float32 and are cast to
`sizes.dtype` where they are used.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from t5x_like.device_parts import size_of
from t5x_like.losses import Term
from t5x_like.models.initializers import Initializer, Initializers

# shard(x, *logical_axes) -> x marks where an activation lives; one name or None per dimension.
Shard = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The widths that all parts of one stack share, and the type they compute in."""

    d_model: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff: int
    dtype: str


def sizes_of(
    *, d_model: int, num_heads: int, num_kv_heads: int | None, head_dim: int | None, d_ff: int, dtype: str
) -> Sizes:
    """Sizes with the usual defaults: as many key heads as query heads, and heads that share out d_model."""
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    if num_heads % num_kv_heads:
        raise ValueError(f"num_heads {num_heads} is not a multiple of num_kv_heads {num_kv_heads}")
    if head_dim is None and d_model % num_heads:
        raise ValueError(f"d_model {d_model} is not a multiple of num_heads {num_heads}; set head_dim to allow it")
    head_dim = d_model // num_heads if head_dim is None else head_dim
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise ValueError(f"dtype {dtype!r} is not a floating type; use 'float32' or 'bfloat16'")
    return Sizes(d_model, num_heads, num_kv_heads, head_dim, d_ff, str(jnp.dtype(dtype)))


def unsharded(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Leaves the activation where it is: one device, or a test."""
    return x


def parameter(
    rngs: nnx.Rngs, init: Initializer, shape: tuple[int, ...], axes: tuple[str | None, ...], fan_in: int
) -> nnx.Param:
    """A float32 parameter with named axes."""
    return nnx.Param(init(rngs.params(), shape, fan_in), axes=axes)


def zeros(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape, jnp.float32), axes=axes)


# matmul(x [..., I], kernel [I, ...]) multiplies activations with a matrix of parameters.
Matmul = Callable[[jax.Array, jax.Array], jax.Array]


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.tensordot(x, kernel, 1)


def project(
    x: jax.Array, kernel: jax.Array, *, dtype: str, num_contracted: int = 1, matmul: Matmul = plain
) -> jax.Array:
    """Contracts the last dims of `x` [B, L, ...] with the first dims of `kernel`, in `dtype`.

    Both are flattened into matrices: on CPU the backward pass of a contraction over (B, L) costs 1.4 times as much, and
    a product of heads apart 1.3 times. A mesh that splits the length of rows cannot keep a flat list of tokens split,
    so there B and L stay apart. A mesh that gathers matrices would gather a flat one and one of heads: there they do.
    """
    contracted, out_shape = kernel.shape[:num_contracted], kernel.shape[num_contracted:]
    fan_in, kept = math.prod(contracted), x.shape[: x.ndim - num_contracted]
    tokens = kept if size_of("context") > 1 else (-1,)
    columns = out_shape if size_of("fsdp") > 1 else (-1,)
    y = matmul(x.reshape(*tokens, fan_in).astype(dtype), kernel.reshape(fan_in, *columns).astype(dtype))
    return y.reshape(*kept, *out_shape)


def split_key(key: jax.Array | None, num: int):
    """`num` keys, or `num` times None where there is no dropout."""
    return [None] * num if key is None else jax.random.split(key, num)


def dropout(x: jax.Array, key: jax.Array | None, *, rate: float, shared_dim: int = 1) -> jax.Array:
    """Zeroes a share `rate` of `x` and scales the rest up; the noise is one along `shared_dim` (T5X: the length)."""
    if key is None or rate == 0.0:
        return x
    shape = tuple(1 if dim == shared_dim % x.ndim else size for dim, size in enumerate(x.shape))
    kept = jax.random.bernoulli(key, 1.0 - rate, shape)
    return x * (kept / (1.0 - rate)).astype(x.dtype)


# A norm is made as `Norm(size)` and works on the last dimension.


class RMSNorm(nnx.Module):
    """x / rms(x) * scale (arXiv:1910.07467), in float32. Epsilon: T5 1e-6, LLaMA 1e-5."""

    def __init__(self, size: int, *, axis: str = "embed", epsilon: float = 1e-6):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(size, jnp.float32), axes=(axis,))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + self.epsilon)
        return (x32 * inverse * along_last(self.scale, x.ndim)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Zero mean, unit variance, then scale and (`use_bias`) bias, in float32 (arXiv:1607.06450)."""

    def __init__(self, size: int, *, axis: str = "embed", epsilon: float = 1e-5, use_bias: bool = True):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(size, jnp.float32), axes=(axis,))
        self.bias = zeros((size,), (axis,)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + self.epsilon)
        y = x32 * inverse * along_last(self.scale, x.ndim)
        return add_bias(y, self.bias).astype(x.dtype)


def along_last(param: nnx.Param, num_dims: int) -> jax.Array:
    """The values of a parameter, shaped to meet the last dims of an array of `num_dims`."""
    value = param[...]
    return value.reshape((1,) * (num_dims - value.ndim) + value.shape)


def add_bias(x: jax.Array, bias: nnx.Param | None) -> jax.Array:
    """x + bias over the last dims, in x's type; x where the part has no bias."""
    return x if bias is None else x + along_last(bias, x.ndim).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """x * normal_cdf(x), by erf: jax.nn.gelu takes erfc, which is slower on CPU."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The tanh approximation that GPT-2 and T5 1.1 were trained with."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """The approximation by a logistic that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}


# An MLP is called as `mlp(x_BLD, is_real_BL, dropout_key=)` and gives its output and the terms it adds to the loss: of
# these two none; they do not look at which tokens are padding either. A mixture of experts does both.


def activation_named(name: str) -> Callable[[jax.Array], jax.Array]:
    if name not in ACTIVATIONS:
        nearest = difflib.get_close_matches(name, ACTIVATIONS, n=1, cutoff=0.0)[0]
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}; nearest is {nearest!r}")
    return ACTIVATIONS[name]


def name_of_activation(function: Callable[[jax.Array], jax.Array]) -> str:
    return next(name for name, known in ACTIVATIONS.items() if known is function)


class Mlp(nnx.Module):
    """down(activation(up(x))): GPT-2 (gelu_tanh, bias), T5 1.0 (relu)."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        activation: str = "gelu",
        use_bias: bool = False,
        dropout_rate: float = 0.0,
        matmul: Matmul = plain,
        shard: Shard = unsharded,
    ):
        D, F = sizes.d_model, sizes.d_ff
        self.dtype, self.dropout_rate, self.shard = sizes.dtype, dropout_rate, shard
        self.activation, self.matmul = activation_named(activation), matmul
        self.up = parameter(rngs, init.mlp_in, (D, F), ("embed", "mlp"), fan_in=D)
        self.down = parameter(rngs, init.mlp_out, (F, D), ("mlp", "embed"), fan_in=F)
        self.up_bias = zeros((F,), ("mlp",)) if use_bias else None
        self.down_bias = zeros((D,), ("embed",)) if use_bias else None

    def __call__(
        self, x_BLD: jax.Array, is_real_BL: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Term]]:
        up_BLF = checkpoint_name(project(x_BLD, self.up[...], dtype=self.dtype, matmul=self.matmul), "mlp_in")
        y_BLF = dropout(self.activation(add_bias(up_BLF, self.up_bias)), dropout_key, rate=self.dropout_rate)
        y_BLF = self.shard(y_BLF, "batch", "inner_length", "mlp_activation")
        down_BLD = checkpoint_name(project(y_BLF, self.down[...], dtype=self.dtype, matmul=self.matmul), "mlp_out")
        return add_bias(down_BLD, self.down_bias), {}


class GatedMlp(nnx.Module):
    """down(activation(gate(x)) * up(x)) (arXiv:2002.05202): LLaMA (silu), T5 1.1 (gelu_tanh). No bias."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        activation: str = "silu",
        dropout_rate: float = 0.0,
        matmul: Matmul = plain,
        shard: Shard = unsharded,
    ):
        D, F = sizes.d_model, sizes.d_ff
        self.dtype, self.dropout_rate, self.shard = sizes.dtype, dropout_rate, shard
        self.activation, self.matmul = activation_named(activation), matmul
        self.gate = parameter(rngs, init.mlp_in, (D, F), ("embed", "mlp"), fan_in=D)
        self.up = parameter(rngs, init.mlp_in, (D, F), ("embed", "mlp"), fan_in=D)
        self.down = parameter(rngs, init.mlp_out, (F, D), ("mlp", "embed"), fan_in=F)

    def __call__(
        self, x_BLD: jax.Array, is_real_BL: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Term]]:
        gate_BLF = checkpoint_name(project(x_BLD, self.gate[...], dtype=self.dtype, matmul=self.matmul), "mlp_in")
        up_BLF = checkpoint_name(project(x_BLD, self.up[...], dtype=self.dtype, matmul=self.matmul), "mlp_in")
        y_BLF = dropout(self.activation(gate_BLF) * up_BLF, dropout_key, rate=self.dropout_rate)
        y_BLF = self.shard(y_BLF, "batch", "inner_length", "mlp_activation")
        return checkpoint_name(project(y_BLF, self.down[...], dtype=self.dtype, matmul=self.matmul), "mlp_out"), {}


class Embedding(nnx.Module):
    """Token ids to vectors, times D ** scale_power (Gemma: 0.5).

    An id outside the vocabulary gives NaN, which stops the run, rather than a wrong row.
    """

    def __init__(self, sizes: Sizes, *, vocab_size: int, init: Initializers, rngs: nnx.Rngs, scale_power: float = 0.0):
        self.dtype, self.scale = sizes.dtype, sizes.d_model**scale_power
        shape = (vocab_size, sizes.d_model)
        self.table = parameter(rngs, init.embedding, shape, ("vocab", "embed"), fan_in=sizes.d_model)

    def __call__(self, tokens_BL: jax.Array) -> jax.Array:
        # The gradient of a frequent token is a sum over all its places, which is taken in float32.
        table_VD = self.table[...].astype(jnp.float32)
        x_BLD = jnp.take(table_VD, tokens_BL, axis=0, mode="fill").astype(self.dtype)
        return x_BLD * jnp.asarray(self.scale, x_BLD.dtype)
