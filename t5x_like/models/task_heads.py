"""Heads on hidden states that predict something else than the next token, made as `Head(sizes, ..., init=, rngs=)`.

Results are float32. S counts things in a row (spans, pairs, markers), C classes. A place beyond the row gives NaN.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.entry import Entry
from t5x_like.models.heads import multiply
from t5x_like.models.initializers import Initializers
from t5x_like.models.layer_loops import save_everything
from t5x_like.models.layers import (
    LayerNorm,
    RMSNorm,
    Shard,
    Sizes,
    activation_named,
    add_bias,
    parameter,
    project,
    split_key,
    unsharded,
    zeros,
)
from t5x_like.models.stack import Hidden, Stack


def take(x_BLD: jax.Array, places_BS: jax.Array) -> jax.Array:
    """The hidden states at these places of each row, [B, S, D]."""
    return jnp.take_along_axis(x_BLD, places_BS[..., None], axis=1, mode="fill")


class ReplacedTokenHead(nnx.Module):
    """One logit a token, [B, L, D] -> [B, L]: was it replaced? (ELECTRA, arXiv:2003.10555, section 2)

    A dense layer of width D with an activation, then one output, as in the released code.
    """

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs, activation: str = "gelu"):
        D = sizes.d_model
        self.dtype, self.activation = sizes.dtype, activation_named(activation)
        self.dense = parameter(rngs, init.mlp_in, (D, D), ("embed", "mlp"), fan_in=D)
        self.dense_bias = zeros((D,), ("mlp",))
        self.out = parameter(rngs, init.logits, (D, 1), ("embed", None), fan_in=D)
        self.out_bias = zeros((1,), (None,))

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        y_BLD = self.activation(add_bias(project(x_BLD, self.dense[...], dtype=self.dtype), self.dense_bias))
        logits_BL1 = multiply(y_BLD, self.out[...], contracted_dim=0, dtype=self.dtype)
        return add_bias(logits_BL1, self.out_bias)[..., 0]


class PairHead(nnx.Module):
    """Which of C classes a pair of texts is in, from the pair's first token: tanh(dense), then C logits.

    Next sentence (BERT, arXiv:1810.04805, section 3.1), order of sentences (ALBERT). [B, L, D] and the places [B, S] of
    the S pairs' first tokens -> [B, S, C].
    """

    def __init__(self, sizes: Sizes, *, num_classes: int, init: Initializers, rngs: nnx.Rngs):
        D = sizes.d_model
        self.dtype = sizes.dtype
        self.dense = parameter(rngs, init.mlp_in, (D, D), ("embed", "mlp"), fan_in=D)
        self.dense_bias = zeros((D,), ("mlp",))
        self.out = parameter(rngs, init.logits, (D, num_classes), ("embed", None), fan_in=D)
        self.out_bias = zeros((num_classes,), (None,))

    def __call__(self, x_BLD: jax.Array, first_BS: jax.Array) -> jax.Array:
        y_BSD = project(take(x_BLD, first_BS), self.dense[...], dtype=self.dtype)
        y_BSD = jnp.tanh(add_bias(y_BSD, self.dense_bias))
        return add_bias(multiply(y_BSD, self.out[...], contracted_dim=0, dtype=self.dtype), self.out_bias)


class BilinearHead(nnx.Module):
    """Scores of every candidate for every anchor, by one matrix per relation.

    Anchors [A, D] and candidates [C, D] -> [K, A, C].

    CONPONO's: a matrix for each distance between two texts (arXiv:2005.10389, section 3).
    """

    def __init__(self, sizes: Sizes, *, num_relations: int, init: Initializers, rngs: nnx.Rngs):
        D = sizes.d_model
        self.dtype = sizes.dtype
        self.kernel = parameter(rngs, init.logits, (num_relations, D, D), (None, "embed", "mlp"), fan_in=D)

    def __call__(self, anchors_AD: jax.Array, candidates_CD: jax.Array) -> jax.Array:
        x = anchors_AD.astype(self.dtype), self.kernel[...].astype(self.dtype), candidates_CD.astype(self.dtype)
        return jnp.einsum("AD,KDE,CE->KAC", *x, preferred_element_type=jnp.float32)


class SpanBoundaryHead(nnx.Module):
    """Predicts a token of a masked span from the tokens beside the span and its place in it.

    y = f(x_before, x_after, p_place), where f is twice norm(gelu(dense)) (SpanBERT, arXiv:1907.10529, section 3.2);
    then logits by the table of the embedding, and a bias per token. For S masked tokens of each row: the places
    `before` and `after` their span and their place `within` it, from 0, each [B, S] -> [B, S, V].

    max_span         longest span; beyond it the result is NaN
    position_width   of p
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        vocab_size: int,
        init: Initializers,
        rngs: nnx.Rngs,
        max_span: int = 20,
        position_width: int = 200,
        norm: Callable = LayerNorm,
    ):
        D, wide = sizes.d_model, 2 * sizes.d_model + position_width
        self.dtype, self.activation = sizes.dtype, activation_named("gelu")
        self.positions = parameter(rngs, init.positions, (max_span, position_width), ("positions", None), fan_in=wide)
        self.first = parameter(rngs, init.mlp_in, (wide, D), (None, "embed"), fan_in=wide)
        self.second = parameter(rngs, init.mlp_in, (D, D), ("embed", "mlp"), fan_in=D)
        self.first_bias, self.second_bias = zeros((D,), ("embed",)), zeros((D,), ("mlp",))
        self.first_norm, self.second_norm = norm(D), norm(D)
        self.bias = zeros((vocab_size,), ("vocab",))

    def __call__(
        self, x_BLD: jax.Array, before_BS: jax.Array, after_BS: jax.Array, within_BS: jax.Array, table_VD: jax.Array
    ) -> jax.Array:
        place_BSP = jnp.take(self.positions[...], within_BS, axis=0, mode="fill").astype(x_BLD.dtype)
        y = jnp.concatenate([take(x_BLD, before_BS), take(x_BLD, after_BS), place_BSP], axis=-1)
        y = self.activation(add_bias(project(y, self.first[...], dtype=self.dtype), self.first_bias))
        y = project(self.first_norm(y), self.second[...], dtype=self.dtype)
        y = self.second_norm(self.activation(add_bias(y, self.second_bias)))
        return add_bias(multiply(y, table_VD, contracted_dim=1, dtype=self.dtype), self.bias)


class RelationHead(nnx.Module):
    """A vector for how two entities are related: a linear map of the states at their start markers, side by side.

    "Entity start" of Matching the Blanks (arXiv:1906.03158, section 3.2); two relations are alike if their vectors have
    a large product. [B, L, D] and the places [B, S] of heads and tails -> [B, S, W].
    """

    def __init__(self, sizes: Sizes, *, width: int, init: Initializers, rngs: nnx.Rngs):
        D = sizes.d_model
        self.dtype = sizes.dtype
        self.kernel = parameter(rngs, init.logits, (2 * D, width), ("embed", "mlp"), fan_in=2 * D)
        self.bias = zeros((width,), ("mlp",))

    def __call__(self, x_BLD: jax.Array, heads_BS: jax.Array, tails_BS: jax.Array) -> jax.Array:
        both = jnp.concatenate([take(x_BLD, heads_BS), take(x_BLD, tails_BS)], axis=-1)
        return add_bias(multiply(both, self.kernel[...], contracted_dim=0, dtype=self.dtype), self.bias)


class EntityHead(nnx.Module):
    """Which entity is behind a mask: table (T norm(gelu(dense(x)))) + bias (LUKE, arXiv:2010.01057, section 3.3).

    States of masked entities [B, S, D] -> [B, S, num_entities]. The table has `width` columns, T takes D to them.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_entities: int,
        init: Initializers,
        rngs: nnx.Rngs,
        width: int = 256,
        norm: Callable = LayerNorm,
    ):
        D = sizes.d_model
        self.dtype, self.activation = sizes.dtype, activation_named("gelu")
        self.dense = parameter(rngs, init.mlp_in, (D, D), ("embed", "mlp"), fan_in=D)
        self.dense_bias = zeros((D,), ("mlp",))
        self.norm = norm(D)
        self.narrow = parameter(rngs, init.mlp_in, (D, width), ("embed", None), fan_in=D)
        self.table = parameter(rngs, init.embedding, (num_entities, width), ("vocab", "embed"), fan_in=width)
        self.bias = zeros((num_entities,), ("vocab",))

    def __call__(self, x_BSD: jax.Array) -> jax.Array:
        y = self.activation(add_bias(project(x_BSD, self.dense[...], dtype=self.dtype), self.dense_bias))
        y = project(self.norm(y), self.narrow[...], dtype=self.dtype)
        return add_bias(multiply(y, self.table[...], contracted_dim=1, dtype=self.dtype), self.bias)


def unit(x: jax.Array) -> jax.Array:
    """x in float32, divided by the length of its last dim."""
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class SoftmaxContrast(nnx.Module):
    """Logits of all pairs: cosine over a learned temperature (CLIP, arXiv:2103.00020, section 2.5).

    [B, W] and [C, W] -> [B, C]. The scale starts at 1 / temperature and is never above `max_scale`.
    """

    def __init__(self, *, temperature: float = 0.07, max_scale: float = 100.0):
        self.log_max = math.log(max_scale)
        self.log_scale = nnx.Param(jnp.float32(-math.log(temperature)), axes=())

    def __call__(self, x_BW: jax.Array, y_CW: jax.Array) -> jax.Array:
        return jnp.exp(jnp.minimum(self.log_scale[...], self.log_max)) * (unit(x_BW) @ unit(y_CW).T)


class SigmoidContrast(nnx.Module):
    """Log odds of every pair by itself: scale * cosine + bias (SigLIP, arXiv:2303.15343, section 3.2).

    [B, W] and [C, W] -> [B, C]. The bias starts low since most pairs do not belong together.
    """

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0):
        self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())
        self.bias = nnx.Param(jnp.float32(bias), axes=())

    def __call__(self, x_BW: jax.Array, y_CW: jax.Array) -> jax.Array:
        return jnp.exp(self.log_scale[...]) * (unit(x_BW) @ unit(y_CW).T) + self.bias[...]


class MultiTokenHeads(nnx.Module):
    """Layers beside each other on one trunk; the i-th, from 0, is for the token i + 2 places ahead.

    arXiv:2404.19737, section 2: n - 1 of them for n-token prediction, since the model's own last layer is the first;
    all share the model's head. The trunk's output [B, L, D] -> `num_extra` times Hidden, for `model.logits`.

    layer   the kind, made as any layer of a stack; norm: after it
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_extra: int,
        layer: Callable,
        init: Initializers,
        rngs: nnx.Rngs,
        norm: Callable | None = RMSNorm,
        dropout_rate: float = 0.0,
        shard: Shard = unsharded,
    ):
        def make() -> Stack:
            return Stack(
                sizes,
                first_layers=(),
                layers=layer,
                num_layers=1,
                layer_loop="unrolled",
                entry=Entry,
                bias=None,
                final_norm=norm,
                bidirectional=False,
                reads_encoder=False,
                remat=save_everything,
                init=init,
                dropout_rate=dropout_rate,
                final_dropout_rate=0.0,
                shard=shard,
                rngs=rngs,
            )

        self.heads = nnx.List([make() for _ in range(num_extra)])

    def __call__(self, x_BLD: jax.Array, features: Features, *, dropout_key: jax.Array | None = None) -> list[Hidden]:
        keys = split_key(dropout_key, len(self.heads))
        return [head(x_BLD, features, dropout_key=key) for head, key in zip(self.heads, keys, strict=True)]
