"""A decoder-only Transformer. Its parts make the family: the defaults are LLaMA's.

GPT-2 is norm=LayerNorm, positions=LearnedPositions, mlp=Mlp, head=TiedHead, init=gpt2_init, with biases in its parts.
"""

from collections.abc import Callable

import jax
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.heads import UntiedHead
from t5x_like.models.initializers import Initializers, normal_init
from t5x_like.models.kv_cache import Cache
from t5x_like.models.layers import Embedding, GatedMlp, RMSNorm, Shard, sizes_of, unsharded
from t5x_like.models.positions import Rotary
from t5x_like.models.stack import Parts, Stack, save_everything


class Decoder(nnx.Module):
    """Tokens to logits through one stack; who sees whom is `features.attn_order`."""

    def __init__(
        self,
        *,
        vocab_size: int,
        num_layers: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        rngs: nnx.Rngs,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        norm: Callable = RMSNorm,
        attention: Callable = Attention,
        mlp: Callable = GatedMlp,
        positions: Callable = Rotary,
        head: Callable = UntiedHead,
        init: Callable[..., Initializers] = normal_init,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
        scan_layers: bool = False,
        remat: Callable[[Callable], Callable] = save_everything,
        shard: Shard = unsharded,
    ):
        sizes = sizes_of(
            d_model=d_model, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, d_ff=d_ff, dtype=dtype
        )
        values = init(num_layers=num_layers, head_dim=sizes.head_dim)
        self.vocab_size, self.shard = vocab_size, shard
        self.embedding = Embedding(sizes, vocab_size=vocab_size, init=values, rngs=rngs)
        self.stack = Stack(
            sizes,
            Parts(norm=norm, attention=attention, mlp=mlp, positions=positions),
            num_layers=num_layers,
            bidirectional=False,
            scan_layers=scan_layers,
            remat=remat,
            init=values,
            dropout_rate=dropout_rate,
            final_dropout_rate=0.0,
            shard=shard,
            rngs=rngs,
        )
        self.head = head(sizes, vocab_size=vocab_size, init=values, rngs=rngs)

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """The last layer's normed output [B, L, D]; no key means no dropout."""
        return self.stack(self.embedding(features.tokens), features, dropout_key=dropout_key)

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """float32 [B, L, V]."""
        logits_BLV = self.head(x_BLD, self.embedding.table[...])
        return self.shard(logits_BLV, "batch", "length", "vocab_activation")

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.logits(self.hidden(features, dropout_key=dropout_key))

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """An empty cache for prompts and what is decoded after them, `max_length` tokens a row together."""
        return self.stack.init_cache(batch_size, max_length)

    def prefill(self, features: Features, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads prompts of one segment a row, padded at the end; logits after each row's last token [B, V]."""
        x_B1D, cache = self.stack.prefill(self.embedding(features.tokens), features, cache)
        return self.logits(x_B1D)[:, 0], cache

    def decode_step(self, tokens_B: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads one more token per row; logits after it [B, V]."""
        x_B1D, cache = self.stack.decode_step(self.embedding(tokens_B[:, None]), cache)
        return self.logits(x_B1D)[:, 0], cache
