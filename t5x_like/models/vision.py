"""Images as rows of patches: a Transformer encoder over them (ViT, arXiv:2010.11929), and what makes one vector of it.

  patches [B, I, C] -- kernel --> [B, I, D] -- class token, positions --> layers --> [B, I + 1, D] -- pool --> [B, D]

C is height * width * channels of a patch, in the order that the data gives them. A pool is made as
`Pool(sizes, init=, rngs=)` and called as `pool(x_BLD, is_real_BL)`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.attention_kernels import across
from t5x_like.models.blocks import Block
from t5x_like.models.entry import Entry
from t5x_like.models.heads import multiply
from t5x_like.models.initializers import Initializers, normal_init
from t5x_like.models.layer_loops import save_everything
from t5x_like.models.layers import (
    LayerNorm,
    Mlp,
    Shard,
    Sizes,
    add_bias,
    parameter,
    project,
    sizes_of,
    unsharded,
    zeros,
)
from t5x_like.models.positions import LearnedPositions
from t5x_like.models.stack import Hidden, Stack

biased_attention = functools.partial(Attention, qkv_bias=True, out_bias=True)
biased_mlp = functools.partial(Mlp, activation="gelu", use_bias=True)
vit_layer = functools.partial(Block, norm=LayerNorm, attention=biased_attention, mlp=biased_mlp)


class VisionEncoder(nnx.Module):
    """Patches to hidden states; every patch sees every other. The defaults are ViT's.

    patch_width       C, numbers in a patch
    num_patches       I, patches in an image: each place has a learned vector
    has_class_token   a learned token stands in front of the patches (ViT, CLIP; SigLIP has none)
    patch_bias        of the map from patches to D (CLIP has none)
    entry_norm        after positions (CLIP)
    The other arguments are those of `Decoder`.
    """

    def __init__(
        self,
        *,
        patch_width: int,
        num_patches: int,
        num_layers: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        rngs: nnx.Rngs,
        has_class_token: bool = True,
        patch_bias: bool = True,
        entry_norm: Callable | None = None,
        layers: Callable | Sequence[Callable] = vit_layer,
        final_norm: Callable | None = LayerNorm,
        init: Callable[..., Initializers] = normal_init,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
        layer_loop: str = "unrolled",
        remat: Callable[[Callable], Callable] = save_everything,
        shard: Shard = unsharded,
    ):
        self.sizes = sizes_of(
            d_model=d_model, num_heads=num_heads, num_kv_heads=None, head_dim=None, d_ff=d_ff, dtype=dtype
        )
        values = init(num_layers=num_layers, head_dim=self.sizes.head_dim)
        kernel = (patch_width, d_model), (None, "embed")
        self.kernel = parameter(rngs, values.embedding, *kernel, fan_in=patch_width)
        self.bias = zeros((d_model,), ("embed",)) if patch_bias else None
        token = (1, d_model), (None, "embed")
        self.class_token = parameter(rngs, values.embedding, *token, fan_in=d_model) if has_class_token else None
        self.num_patches = num_patches
        positions = functools.partial(LearnedPositions, max_length=num_patches + has_class_token)
        self.stack = Stack(
            self.sizes,
            first_layers=(),
            layers=layers,
            num_layers=num_layers,
            layer_loop=layer_loop,
            entry=functools.partial(Entry, positions=positions, norm=entry_norm),
            bias=None,
            final_norm=final_norm,
            bidirectional=True,
            reads_encoder=False,
            remat=remat,
            init=values,
            dropout_rate=dropout_rate,
            final_dropout_rate=0.0,
            shard=shard,
            rngs=rngs,
        )

    def hidden(self, patches_BIC: jax.Array, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The last layer's output [B, I, D], or [B, 1 + I, D] with a class token in front."""
        if patches_BIC.shape[1] != self.num_patches:
            raise ValueError(
                f"images of {patches_BIC.shape[1]} patches; this encoder has places for {self.num_patches}"
            )
        x_BLD = add_bias(project(patches_BIC, self.kernel[...], dtype=self.sizes.dtype), self.bias)
        if self.class_token is not None:
            first = self.class_token[...].astype(x_BLD.dtype)[None]
            x_BLD = jnp.concatenate([jnp.broadcast_to(first, (x_BLD.shape[0], *first.shape[1:])), x_BLD], axis=1)
        return self.stack(x_BLD, one_segment(*x_BLD.shape[:2]), dropout_key=dropout_key)


def one_segment(num_rows: int, length: int) -> Features:
    """Rows without padding in which everyone sees everyone."""
    place_BL = jnp.broadcast_to(jnp.arange(length)[None], (num_rows, length))
    ones_BL = jnp.ones_like(place_BL)
    return Features(None, None, None, ones_BL, place_BL[..., None], jnp.zeros_like(place_BL))


class FirstToken(nnx.Module):
    """The class token (ViT, CLIP)."""

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs):
        pass

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> jax.Array:
        return x_BLD[:, 0]


class LastToken(nnx.Module):
    """Each row's last token that is not padding (the text of CLIP and SigLIP)."""

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs):
        pass

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> jax.Array:
        last_B = jnp.max(jnp.where(is_real_BL, jnp.arange(x_BLD.shape[1])[None], 0), axis=1)
        return jnp.take_along_axis(x_BLD, last_B[:, None, None], axis=1)[:, 0]


class MeanToken(nnx.Module):
    """The mean of all tokens that are not padding."""

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs):
        pass

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> jax.Array:
        weights_BL1 = is_real_BL[..., None].astype(x_BLD.dtype)
        return (x_BLD * weights_BL1).sum(axis=1) / weights_BL1.sum(axis=1)


class AttentionPool(nnx.Module):
    """Learned queries that read all tokens: [B, L, D] -> `read` gives [B, Q, D], a call the first query's [B, D].

    SigLIP has one query, and an MLP in a residual after it (arXiv:2106.04560, section 3.2); CoCa 256 queries and no MLP
    (arXiv:2205.01917, section 3.2).
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        num_queries: int = 1,
        attention: Callable = biased_attention,
        norm: Callable = LayerNorm,
        mlp: Callable | None = biased_mlp,
    ):
        shape = (num_queries, sizes.d_model)
        self.dtype = sizes.dtype
        self.queries = parameter(rngs, init.embedding, shape, (None, "embed"), fan_in=sizes.d_model)
        self.attention = attention(sizes, init=init, rngs=rngs)
        self.norm = norm(sizes.d_model) if mlp else None
        self.mlp = mlp and mlp(sizes, init=init, rngs=rngs)

    def read(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> jax.Array:
        queries_BQD = jnp.broadcast_to(
            self.queries[...].astype(self.dtype)[None], (x_BLD.shape[0], *self.queries.shape)
        )
        ones_BQ = jnp.ones(queries_BQD.shape[:2], jnp.int32)
        visible = across(ones_BQ, is_real_BL.astype(jnp.int32))
        y_BQD = self.attention(queries_BQD, self.attention.keys_values(x_BLD, None), visible)
        if self.mlp is None:
            return y_BQD
        return y_BQD + self.mlp(self.norm(y_BQD), ones_BQ > 0)[0]

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> jax.Array:
        return self.read(x_BLD, is_real_BL)[:, 0]


class ImageClassifier(nnx.Module):
    """`features.patches` to float32 [B, C]: which of C classes an image is in (ViT, section 3.1).

    image   makes a VisionEncoder
    pool    makes one vector of its output
    """

    def __init__(
        self,
        *,
        image: Callable,
        num_classes: int,
        rngs: nnx.Rngs,
        pool: Callable = FirstToken,
        init: Callable[..., Initializers] = normal_init,
        shard: Shard = unsharded,
    ):
        self.image: VisionEncoder = image(shard=shard, rngs=rngs)
        sizes = self.image.sizes
        values = init(num_layers=1, head_dim=sizes.head_dim)
        self.pool = pool(sizes, init=values, rngs=rngs)
        self.dtype = sizes.dtype
        kernel = (sizes.d_model, num_classes), ("embed", None)
        self.kernel = parameter(rngs, values.logits, *kernel, fan_in=sizes.d_model)
        self.bias = zeros((num_classes,), (None,))

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        x_BLD = self.image.hidden(features.patches, dropout_key=dropout_key).x_BLD
        x_BD = self.pool(x_BLD, jnp.ones(x_BLD.shape[:2], bool))
        logits_BC = multiply(x_BD[:, None], self.kernel[...], contracted_dim=0, dtype=self.dtype)[:, 0]
        return add_bias(logits_BC, self.bias)
