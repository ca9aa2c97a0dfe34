"""A decoder-only Transformer. Its parts make the family: the defaults are LLaMA's.

GPT-2 is entry=Entry with LearnedPositions, layers=Block with LayerNorm and Mlp, all with biases, head=TiedHead.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block
from t5x_like.models.entry import Entry
from t5x_like.models.heads import UntiedHead
from t5x_like.models.initializers import Initializers, normal_init
from t5x_like.models.kv_cache import Cache
from t5x_like.models.layer_loops import LayerLoop, save_everything
from t5x_like.models.layers import Embedding, RMSNorm, Shard, sizes_of, unsharded
from t5x_like.models.rotary import Rotary
from t5x_like.models.stack import Hidden, Stack

llama_layer = functools.partial(Block, attention=functools.partial(Attention, rotary=Rotary))


class Decoder(nnx.Module):
    """Tokens to logits through one stack; who sees whom is `features.attn_order`.

    layers        the kind of every layer, or the kinds of a cycle of layers; `first_layers` stand before them
    layer_loop    unrolled, scanned (compiles once for all layers) or shared; or a loop, such as `pipelined()`
    entry, bias   what is added to embeddings, and to attention logits, by position
    task_heads    what an objective predicts with beside the next token, by name, e.g. {"ahead": MultiTokenHeads}
    """

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
        embedding: Callable = Embedding,
        entry: Callable = Entry,
        bias: Callable | None = None,
        layers: Callable | Sequence[Callable] = llama_layer,
        first_layers: Sequence[Callable] = (),
        final_norm: Callable | None = RMSNorm,
        head: Callable = UntiedHead,
        init: Callable[..., Initializers] = normal_init,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
        layer_loop: str | LayerLoop = "unrolled",
        remat: Callable[[Callable], Callable] = save_everything,
        task_heads: Mapping[str, Callable] = MappingProxyType({}),
        shard: Shard = unsharded,
    ):
        sizes = sizes_of(
            d_model=d_model, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, d_ff=d_ff, dtype=dtype
        )
        values = init(num_layers=num_layers, head_dim=sizes.head_dim)
        self.vocab_size, self.shard = vocab_size, shard
        self.embedding = embedding(sizes, vocab_size=vocab_size, init=values, rngs=rngs)
        self.stack = Stack(
            sizes,
            first_layers=first_layers,
            layers=layers,
            num_layers=num_layers,
            layer_loop=layer_loop,
            entry=entry,
            bias=bias,
            final_norm=final_norm,
            bidirectional=False,
            reads_encoder=False,
            remat=remat,
            init=values,
            dropout_rate=dropout_rate,
            final_dropout_rate=0.0,
            shard=shard,
            rngs=rngs,
        )
        self.head = head(sizes, vocab_size=vocab_size, init=values, rngs=rngs)
        self.task_heads = nnx.Dict({name: make(sizes, init=values, rngs=rngs) for name, make in task_heads.items()})

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The last layer's normed output [B, L, D] and the layers' terms; no key means no dropout."""
        return self.stack(self.embedding(features.tokens), features, dropout_key=dropout_key)

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """float32 [B, L, V]."""
        logits_BLV = self.head(x_BLD, self.embedding.table[...])
        return self.shard(logits_BLV, "batch", "inner_length", "vocab_activation")

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.logits(self.hidden(features, dropout_key=dropout_key).x_BLD)

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
