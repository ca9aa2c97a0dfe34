"""Models of an image, `features.patches`, and a text, all other features of the same rows.

  TwoTowers            image -> vector, text -> vector, compared (CLIP, arXiv:2103.00020; SigLIP, arXiv:2303.15343)
  ImagePrefixDecoder   the image stands in front of the text (PaliGemma, arXiv:2407.07726)
  ContrastiveCaptioner both: a text is compared with the image, then read again with it (CoCa, arXiv:2205.01917)

Rows hold one text each.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder import Encoder
from t5x_like.models.entry import Entry
from t5x_like.models.heads import TiedHead
from t5x_like.models.initializers import Initializers, normal_init
from t5x_like.models.kv_cache import Cache
from t5x_like.models.layer_loops import save_everything
from t5x_like.models.layers import (
    Embedding,
    LayerNorm,
    Shard,
    Sizes,
    add_bias,
    parameter,
    project,
    sizes_of,
    split_key,
    unsharded,
    zeros,
)
from t5x_like.models.positions import LearnedPositions
from t5x_like.models.stack import Hidden, Stack, sum_terms
from t5x_like.models.task_heads import SoftmaxContrast
from t5x_like.models.vision import AttentionPool, FirstToken, LastToken, VisionEncoder, one_segment, vit_layer


class Projection(nnx.Module):
    """[..., D] -> [..., width]."""

    def __init__(self, sizes: Sizes, *, width: int, init: Initializers, rngs: nnx.Rngs, use_bias: bool = False):
        self.dtype = sizes.dtype
        kernel = (sizes.d_model, width), ("embed", "mlp")
        self.kernel = parameter(rngs, init.logits, *kernel, fan_in=sizes.d_model)
        self.bias = zeros((width,), ("mlp",)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return add_bias(project(x, self.kernel[...], dtype=self.dtype), self.bias)


class Matched(NamedTuple):
    """A vector of each image and of each text, not yet normed, and the terms of the layers."""

    image_BW: jax.Array
    text_BW: jax.Array
    terms: dict[str, Term]


class TwoTowers(nnx.Module):
    """The defaults are CLIP's; which tokens of a text see which is told by `features.attn_order` (CLIP: causal).

    image, text                         make a VisionEncoder, and an Encoder without a head
    image_pool, text_pool               make one vector of a row
    image_projection, text_projection   to `width`; None where a tower has that width itself (SigLIP's image)
    contrast                            compares vectors (SigLIP: SigmoidContrast)
    """

    def __init__(
        self,
        *,
        image: Callable,
        text: Callable,
        width: int,
        rngs: nnx.Rngs,
        image_pool: Callable = FirstToken,
        text_pool: Callable = LastToken,
        image_projection: Callable | None = Projection,
        text_projection: Callable | None = Projection,
        contrast: Callable = SoftmaxContrast,
        init: Callable[..., Initializers] = normal_init,
        shard: Shard = unsharded,
    ):
        self.image: VisionEncoder = image(shard=shard, rngs=rngs)
        self.text: Encoder = text(head=None, shard=shard, rngs=rngs)
        self.vocab_size = self.text.vocab_size
        values = init(num_layers=1, head_dim=self.text.sizes.head_dim)
        self.image_pool = image_pool(self.image.sizes, init=values, rngs=rngs)
        self.text_pool = text_pool(self.text.sizes, init=values, rngs=rngs)
        told = {"width": width, "init": values, "rngs": rngs}
        self.image_projection = image_projection and image_projection(self.image.sizes, **told)
        self.text_projection = text_projection and text_projection(self.text.sizes, **told)
        self.contrast = contrast()

    def embed(self, features: Features, *, dropout_key: jax.Array | None = None) -> Matched:
        """The vectors of the images and the texts of a batch."""
        image_key, text_key = split_key(dropout_key, 2)
        x_BLD, image_terms = self.image.hidden(features.patches, dropout_key=image_key)
        x_BD = self.image_pool(x_BLD, jnp.ones(x_BLD.shape[:2], bool))
        y_BLD, text_terms = self.text.hidden(features, dropout_key=text_key)
        y_BD = self.text_pool(y_BLD, features.segment_ids > 0)
        return Matched(
            x_BD if self.image_projection is None else self.image_projection(x_BD),
            y_BD if self.text_projection is None else self.text_projection(y_BD),
            sum_terms([image_terms, text_terms]),
        )

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """float32 [B, B]: how well each image (row) fits each text (column)."""
        image_BW, text_BW, _ = self.embed(features, dropout_key=dropout_key)
        return self.contrast(image_BW, text_BW)


class ImagePrefixDecoder(nnx.Module):
    """A decoder whose first I places are the image's.

    All features but `patches` have I + T places. The tokens of the first I are never read; `attn_order` says how the
    image is seen (PaliGemma: 0 for image and question, then 1, 2, ... for the answer), and the text's loss weights
    stand from place I on.

    image, text   make a VisionEncoder without a class token, and a Decoder
    """

    def __init__(
        self,
        *,
        image: Callable,
        text: Callable,
        rngs: nnx.Rngs,
        init: Callable[..., Initializers] = normal_init,
        shard: Shard = unsharded,
    ):
        self.image: VisionEncoder = image(has_class_token=False, shard=shard, rngs=rngs)
        self.text: Decoder = text(shard=shard, rngs=rngs)
        self.vocab_size = self.text.vocab_size
        values = init(num_layers=1, head_dim=self.text.stack.sizes.head_dim)
        width = self.text.stack.sizes.d_model
        self.projection = Projection(self.image.sizes, width=width, init=values, rngs=rngs, use_bias=True)

    def embed(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """What the decoder's first layer reads: the projected image, then the embedded text."""
        x_BID, terms = self.image.hidden(features.patches, dropout_key=dropout_key)
        num_patches = x_BID.shape[1]
        if features.tokens.shape[1] <= num_patches:
            raise ValueError(
                f"rows of {features.tokens.shape[1]} places hold no text behind {num_patches} patches; make them longer"
            )
        y_BTD = self.text.embedding(features.tokens[:, num_patches:])
        return Hidden(jnp.concatenate([self.projection(x_BID).astype(y_BTD.dtype), y_BTD], axis=1), terms)

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The decoder's normed output [B, I + T, D] and the terms of all layers."""
        image_key, text_key = split_key(dropout_key, 2)
        x_BLD, image_terms = self.embed(features, dropout_key=image_key)
        x_BLD, terms = self.text.stack(x_BLD, features, dropout_key=text_key)
        return Hidden(x_BLD, sum_terms([image_terms, terms]))

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """float32 [B, I + T, V]."""
        return self.text.logits(x_BLD)

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.logits(self.hidden(features, dropout_key=dropout_key).x_BLD)

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """An empty cache for `max_length` places a row, the image's included."""
        return self.text.init_cache(batch_size, max_length)

    def prefill(self, features: Features, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads image and prompt; logits after each row's last token [B, V]."""
        x_B1D, cache = self.text.stack.prefill(self.embed(features).x_BLD, features, cache)
        return self.logits(x_B1D)[:, 0], cache

    def decode_step(self, tokens_B: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads one more token per row; logits after it [B, V]."""
        return self.text.decode_step(tokens_B, cache)


class Captioned(NamedTuple):
    """The vectors that are compared, and the multimodal decoder's output [B, L, D] for `logits`."""

    image_BW: jax.Array
    text_BW: jax.Array
    x_BLD: jax.Array
    terms: dict[str, Term]


class ContrastiveCaptioner(nnx.Module):
    """A text decoder in two halves: the first reads the text alone, the second also the image (section 3.2).

    A learned token behind each text sees all of it and becomes its vector; no token sees this one. One pool of queries
    makes the image's vector, another of `num_queries` what the second half reads.

    image          makes a VisionEncoder without a class token, of width d_model
    num_unimodal   layers of the first half; num_multimodal: of the second
    """

    def __init__(
        self,
        *,
        image: Callable,
        vocab_size: int,
        max_length: int,
        num_unimodal: int,
        num_multimodal: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        width: int,
        rngs: nnx.Rngs,
        num_queries: int = 256,
        layers: Callable = vit_layer,
        norm: Callable = LayerNorm,
        head: Callable = TiedHead,
        contrast: Callable = SoftmaxContrast,
        init: Callable[..., Initializers] = normal_init,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
        layer_loop: str = "unrolled",
        remat: Callable[[Callable], Callable] = save_everything,
        shard: Shard = unsharded,
    ):
        sizes = sizes_of(d_model=d_model, num_heads=num_heads, num_kv_heads=None, head_dim=None, d_ff=d_ff, dtype=dtype)
        values = init(num_layers=num_unimodal + num_multimodal, head_dim=sizes.head_dim)
        make_stack = functools.partial(
            Stack,
            sizes,
            first_layers=(),
            layers=layers,
            layer_loop=layer_loop,
            bias=None,
            final_norm=norm,
            bidirectional=False,
            remat=remat,
            init=values,
            dropout_rate=dropout_rate,
            final_dropout_rate=0.0,
            shard=shard,
            rngs=rngs,
        )
        self.vocab_size, self.shard = vocab_size, shard
        self.image: VisionEncoder = image(has_class_token=False, shard=shard, rngs=rngs)
        check_widths(self.image, d_model)
        part = {"init": values, "rngs": rngs}
        self.image_pool = AttentionPool(sizes, **part, mlp=None)
        self.caption_pool = AttentionPool(sizes, **part, mlp=None, num_queries=num_queries)
        self.image_norm, self.caption_norm = norm(d_model), norm(d_model)
        self.embedding = Embedding(sizes, vocab_size=vocab_size, **part)
        self.text_token = parameter(rngs, values.embedding, (1, d_model), (None, "embed"), fan_in=d_model)
        entry = functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=max_length + 1))
        self.unimodal = make_stack(num_layers=num_unimodal, entry=entry, reads_encoder=False)
        self.multimodal = make_stack(num_layers=num_multimodal, entry=Entry, reads_encoder=True)
        self.image_projection = Projection(sizes, width=width, **part)
        self.text_projection = Projection(sizes, width=width, **part)
        self.contrast = contrast()
        self.head = head(sizes, vocab_size=vocab_size, **part)

    def read(self, features: Features, *, dropout_key: jax.Array | None = None) -> Captioned:
        """Everything of one forward pass."""
        image_key, text_key, both_key = split_key(dropout_key, 3)
        z_BID, image_terms = self.image.hidden(features.patches, dropout_key=image_key)
        is_patch_BI = jnp.ones(z_BID.shape[:2], bool)
        pooled_BD = self.image_norm(self.image_pool(z_BID, is_patch_BI))
        read_BQD = self.caption_norm(self.caption_pool.read(z_BID, is_patch_BI))
        x_BLD, text_terms = self.unimodal(self.embed(features), with_text_token(features), dropout_key=text_key)
        y_BLD, terms = self.multimodal(
            x_BLD[:, :-1],
            features._replace(encoder=one_segment(*read_BQD.shape[:2])),
            encoded_BMD=read_BQD,
            dropout_key=both_key,
        )
        return Captioned(
            self.image_projection(pooled_BD),
            self.text_projection(x_BLD[:, -1]),
            y_BLD,
            sum_terms([image_terms, text_terms, terms]),
        )

    def embed(self, features: Features) -> jax.Array:
        """The tokens and, behind all of them, the text's own [B, L + 1, D]."""
        x_BLD = self.embedding(features.tokens)
        last = self.text_token[...].astype(x_BLD.dtype)[None]
        return jnp.concatenate([x_BLD, jnp.broadcast_to(last, (x_BLD.shape[0], *last.shape[1:]))], axis=1)

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The output [B, L, D] of the second half, for captions."""
        read = self.read(features, dropout_key=dropout_key)
        return Hidden(read.x_BLD, read.terms)

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """float32 [B, L, V]."""
        logits_BLV = self.head(x_BLD, self.embedding.table[...])
        return self.shard(logits_BLV, "batch", "inner_length", "vocab_activation")

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.logits(self.hidden(features, dropout_key=dropout_key).x_BLD)


def check_widths(image: VisionEncoder, d_model: int) -> None:
    if image.sizes.d_model != d_model:
        raise ValueError(f"the image encoder has d_model {image.sizes.d_model}, the text {d_model}: make them one")


def with_text_token(features: Features) -> Features:
    """One more place per row, which sees its text whole and is the last in every order."""

    def longer(x_BL, last_B1):
        return jnp.concatenate([x_BL, last_B1], axis=1)

    ones_B1 = jnp.ones_like(features.segment_ids[:, :1])
    length = features.segment_ids.shape[1]
    return features._replace(
        segment_ids=longer(features.segment_ids, ones_B1),
        attn_order=longer(features.attn_order, features.attn_order.max(axis=1, keepdims=True) + 1),
        positions=longer(features.positions, jnp.full_like(features.positions[:, :1], length)),
    )
