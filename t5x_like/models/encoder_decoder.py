"""An encoder-decoder Transformer. The defaults are T5 1.1 as T5X trains it (arXiv:1910.10683, arXiv:2002.05202).

T5 1.0 is mlp=Mlp with relu, and head=ScaledTiedHead. BART (arXiv:1910.13461) is layers=Block with PostNorm, LayerNorm
and Mlp, entry=Entry with LearnedPositions and a norm, no bias, no final norm, head=BiasedTiedHead; mBART has PreNorm.
"""

import functools
from collections.abc import Callable, Sequence

import jax
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.attention_bias import RelativeBuckets
from t5x_like.models.blocks import Block
from t5x_like.models.entry import Entry
from t5x_like.models.heads import UntiedHead
from t5x_like.models.initializers import Initializers, t5_init
from t5x_like.models.kv_cache import Cache
from t5x_like.models.layer_loops import LayerLoop, save_everything
from t5x_like.models.layers import Embedding, GatedMlp, RMSNorm, Shard, sizes_of, unsharded
from t5x_like.models.stack import Hidden, Stack, sum_terms

t5_attention = functools.partial(Attention, logit_scale=1.0)
t5_layer = functools.partial(
    Block,
    attention=t5_attention,
    cross_attention=t5_attention,
    mlp=functools.partial(GatedMlp, activation="gelu_tanh"),
)


class EncoderDecoder(nnx.Module):
    """`features.encoder` is read by one stack, `features` by another that also attends to the first's output.

    Both stacks are made of the same parts, each with values of its own; only the token embedding is one. The arguments
    are those of `Decoder`.

    final_dropout_rate   of both stacks' output; None is `dropout_rate` (T5), 0 is none (BART)
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        num_encoder_layers: int,
        num_decoder_layers: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        rngs: nnx.Rngs,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        embedding: Callable = Embedding,
        entry: Callable = Entry,
        bias: Callable | None = RelativeBuckets,
        layers: Callable | Sequence[Callable] = t5_layer,
        final_norm: Callable | None = RMSNorm,
        head: Callable = UntiedHead,
        init: Callable[..., Initializers] = t5_init,
        dropout_rate: float = 0.0,
        final_dropout_rate: float | None = None,
        dtype: str = "float32",
        layer_loop: str | LayerLoop = "unrolled",
        remat: Callable[[Callable], Callable] = save_everything,
        shard: Shard = unsharded,
    ):
        sizes = sizes_of(
            d_model=d_model, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, d_ff=d_ff, dtype=dtype
        )
        make_stack = functools.partial(
            Stack,
            sizes,
            first_layers=(),
            layers=layers,
            layer_loop=layer_loop,
            entry=entry,
            bias=bias,
            final_norm=final_norm,
            remat=remat,
            dropout_rate=dropout_rate,
            final_dropout_rate=dropout_rate if final_dropout_rate is None else final_dropout_rate,
            shard=shard,
            rngs=rngs,
        )
        encoder_init = init(num_layers=num_encoder_layers, head_dim=sizes.head_dim)
        decoder_init = init(num_layers=num_decoder_layers, head_dim=sizes.head_dim)
        self.vocab_size, self.shard = vocab_size, shard
        self.embedding = embedding(sizes, vocab_size=vocab_size, init=encoder_init, rngs=rngs)
        self.encoder = make_stack(
            num_layers=num_encoder_layers, bidirectional=True, reads_encoder=False, init=encoder_init
        )
        self.decoder = make_stack(
            num_layers=num_decoder_layers, bidirectional=False, reads_encoder=True, init=decoder_init
        )
        self.head = head(sizes, vocab_size=vocab_size, init=decoder_init, rngs=rngs)

    def encode(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The encoder's output [B, M, D] for features of the encoder's side, and its layers' terms."""
        return self.encoder(self.embedding(features.tokens), features, dropout_key=dropout_key)

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The decoder's normed output [B, L, D], and the terms of all layers; no key means no dropout."""
        encoder_key, decoder_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        encoded_BMD, encoder_terms = self.encode(features.encoder, dropout_key=encoder_key)
        x_BLD = self.embedding(features.tokens)
        x_BLD, terms = self.decoder(x_BLD, features, encoded_BMD=encoded_BMD, dropout_key=decoder_key)
        return Hidden(x_BLD, sum_terms([encoder_terms, terms]))

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """float32 [B, L, V]."""
        logits_BLV = self.head(x_BLD, self.embedding.table[...])
        return self.shard(logits_BLV, "batch", "inner_length", "vocab_activation")

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.logits(self.hidden(features, dropout_key=dropout_key).x_BLD)

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """An empty cache for `max_length` decoder tokens a row."""
        return self.decoder.init_cache(batch_size, max_length)

    def prefill(self, features: Features, cache: Cache) -> tuple[jax.Array, Cache]:
        """Encodes once and reads the start of each decoder row; logits after its last token [B, V]."""
        encoded_BMD = self.encode(features.encoder).x_BLD
        x_BLD = self.embedding(features.tokens)
        x_B1D, cache = self.decoder.prefill(x_BLD, features, cache, encoded_BMD=encoded_BMD)
        return self.logits(x_B1D)[:, 0], cache

    def decode_step(self, tokens_B: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads one more token per row; logits after it [B, V]."""
        x_B1D, cache = self.decoder.decode_step(self.embedding(tokens_B[:, None]), cache)
        return self.logits(x_B1D)[:, 0], cache
