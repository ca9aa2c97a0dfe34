"""One layer: attention, cross attention where there is an encoder to read, and an MLP; and where the norms stand.

  Block with PreNorm        x + part(norm(x))                       GPT-2, T5, LLaMA
  Block with PostNorm       norm(x + part(x))                       BERT, BART
  Block with SandwichNorm   x + norm(part(norm(x)))                 Gemma 2 and 3
  Block with NoNorm         x + part(x)                             first attention of ModernBERT
  ParallelBlock             x + attention(norm(x)) + mlp(norm(x))   GPT-NeoX

A block is made as `Block(sizes, bidirectional=, reads_encoder=, init=, dropout_rate=, shard=, rngs=)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from t5x_like.losses import Term
from t5x_like.models.attention import Attention
from t5x_like.models.attention_kernels import Visible
from t5x_like.models.initializers import Initializers
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import GatedMlp, RMSNorm, Shard, Sizes, dropout, split_key

# remember(the layer's new keys and values) -> those that its queries read: the new ones, or also old ones.
Remember = Callable[[KeysValues], KeysValues]


class Surroundings(NamedTuple):
    """What every layer sees besides its input."""

    visible: Visible
    positions_BLP: jax.Array
    is_real_BL: jax.Array  # not padding
    bias_BNLM: jax.Array | None  # shared by all layers
    bias_of: Callable[[Any], jax.Array]  # what a layer's own bias part gives for these places
    cross_visible: Visible | None


class Output(NamedTuple):
    """What a layer gives: its tokens, the keys and values that it read, and the terms it adds to the loss."""

    x_BLD: jax.Array
    seen: KeysValues
    terms: dict[str, Term]


class PreNorm(nnx.Module):
    def __init__(self, norm: Callable, size: int):
        self.before = norm(size)

    def enter(self, x_BLD: jax.Array) -> jax.Array:
        return self.before(x_BLD)

    def leave(self, x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
        return x_BLD + y_BLD


class PostNorm(nnx.Module):
    def __init__(self, norm: Callable, size: int):
        self.after = norm(size)

    def enter(self, x_BLD: jax.Array) -> jax.Array:
        return x_BLD

    def leave(self, x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
        return self.after(x_BLD + y_BLD)


class SandwichNorm(nnx.Module):
    def __init__(self, norm: Callable, size: int):
        self.before, self.after = norm(size), norm(size)

    def enter(self, x_BLD: jax.Array) -> jax.Array:
        return self.before(x_BLD)

    def leave(self, x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
        return x_BLD + self.after(y_BLD)


class NoNorm(nnx.Module):
    def __init__(self, norm: Callable, size: int):
        pass

    def enter(self, x_BLD: jax.Array) -> jax.Array:
        return x_BLD

    def leave(self, x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
        return x_BLD + y_BLD


class Block(nnx.Module):
    """One part after the other, each in its residual.

    residual              where the norms of all parts stand; attention_residual: those of attention, if they differ
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        bidirectional: bool,
        reads_encoder: bool,
        init: Initializers,
        dropout_rate: float,
        shard: Shard,
        rngs: nnx.Rngs,
        residual: Callable = PreNorm,
        attention_residual: Callable | None = None,
        norm: Callable = RMSNorm,
        attention: Callable = Attention,
        cross_attention: Callable = Attention,
        mlp: Callable = GatedMlp,
    ):
        make = {"init": init, "rngs": rngs, "dropout_rate": dropout_rate, "shard": shard}
        self.dropout_rate, self.shard = dropout_rate, shard
        self.attention_norm = (attention_residual or residual)(norm, sizes.d_model)
        self.attention = attention(sizes, bidirectional=bidirectional, **make)
        self.cross_attention_norm = residual(norm, sizes.d_model) if reads_encoder else None
        self.cross_attention = cross_attention(sizes, **make) if reads_encoder else None
        self.mlp_norm = residual(norm, sizes.d_model)
        self.mlp = mlp(sizes, **make)

    def __call__(
        self,
        x_BLD: jax.Array,
        around: Surroundings,
        *,
        remember: Remember,
        cross: KeysValues | None,
        dropout_key: jax.Array | None,
    ) -> Output:
        keys = split_key(dropout_key, 6)
        y_BLD = self.attention_norm.enter(x_BLD)
        y_BLD, seen = attend_to_own(self.attention, y_BLD, around, remember, keys[0])
        x_BLD = self.leave(self.attention_norm, x_BLD, y_BLD, keys[1])
        if self.cross_attention is not None:
            y_BLD = self.cross_attention_norm.enter(x_BLD)
            y_BLD = self.cross_attention(y_BLD, cross, around.cross_visible, dropout_key=keys[2])
            x_BLD = self.leave(self.cross_attention_norm, x_BLD, y_BLD, keys[3])
        y_BLD, terms = self.mlp(self.mlp_norm.enter(x_BLD), around.is_real_BL, dropout_key=keys[4])
        return Output(self.leave(self.mlp_norm, x_BLD, y_BLD, keys[5]), seen, terms)

    def leave(self, residual: nnx.Module, x_BLD: jax.Array, y_BLD: jax.Array, key: jax.Array | None) -> jax.Array:
        x_BLD = residual.leave(x_BLD, dropout(y_BLD, key, rate=self.dropout_rate))
        return self.shard(x_BLD, "batch", "length", "embed_activation")

    def cross_keys_values(self, encoded_BMD: jax.Array | None) -> KeysValues | None:
        return None if self.cross_attention is None else self.cross_attention.keys_values(encoded_BMD, None)


class ParallelBlock(nnx.Module):
    """Attention and MLP read the same input, each through its own norm (GPT-NeoX, arXiv:2204.06745, section 2.1.3)."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        bidirectional: bool,
        reads_encoder: bool,
        init: Initializers,
        dropout_rate: float,
        shard: Shard,
        rngs: nnx.Rngs,
        norm: Callable = RMSNorm,
        attention: Callable = Attention,
        mlp: Callable = GatedMlp,
    ):
        if reads_encoder:
            raise ValueError("ParallelBlock has no cross attention: use Block in the decoder of an encoder-decoder")
        make = {"init": init, "rngs": rngs, "dropout_rate": dropout_rate, "shard": shard}
        self.dropout_rate, self.shard = dropout_rate, shard
        self.attention_norm, self.mlp_norm = norm(sizes.d_model), norm(sizes.d_model)
        self.attention = attention(sizes, bidirectional=bidirectional, **make)
        self.mlp = mlp(sizes, **make)

    def __call__(
        self,
        x_BLD: jax.Array,
        around: Surroundings,
        *,
        remember: Remember,
        cross: KeysValues | None,
        dropout_key: jax.Array | None,
    ) -> Output:
        keys = split_key(dropout_key, 4)
        y_BLD, seen = attend_to_own(self.attention, self.attention_norm(x_BLD), around, remember, keys[0])
        z_BLD, terms = self.mlp(self.mlp_norm(x_BLD), around.is_real_BL, dropout_key=keys[1])
        y_BLD = dropout(y_BLD, keys[2], rate=self.dropout_rate) + dropout(z_BLD, keys[3], rate=self.dropout_rate)
        return Output(self.shard(x_BLD + y_BLD, "batch", "length", "embed_activation"), seen, terms)

    def cross_keys_values(self, encoded_BMD: jax.Array | None) -> None:
        return None


def attend_to_own(
    attention: nnx.Module, x_BLD: jax.Array, around: Surroundings, remember: Remember, dropout_key: jax.Array | None
) -> tuple[jax.Array, KeysValues]:
    """Self-attention, and the keys and values that were read."""
    seen = remember(attention.keys_values(x_BLD, around.positions_BLP))
    y_BLD = attention(
        x_BLD,
        seen,
        around.visible,
        positions_BLP=around.positions_BLP,
        bias_BNLM=around.bias_BNLM if attention.bias is None else around.bias_of(attention.bias),
        dropout_key=dropout_key,
    )
    return y_BLD, seen
