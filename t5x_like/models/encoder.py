"""An encoder-only Transformer. Its parts make the family: the defaults are BERT's (arXiv:1810.04805).

RoBERTa      entry with one type
ALBERT       embedding=FactorisedEmbedding, entry=FactorisedEntry, layer_loop="shared"
ModernBERT   a cycle of layers with rotary positions, first_layers without a norm before attention, GatedMlp
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block, PostNorm
from t5x_like.models.entry import Entry
from t5x_like.models.heads import MlmHead
from t5x_like.models.initializers import Initializers, normal_init
from t5x_like.models.layer_loops import LayerLoop, save_everything
from t5x_like.models.layers import Embedding, LayerNorm, Mlp, Shard, sizes_of, unsharded
from t5x_like.models.positions import LearnedPositions
from t5x_like.models.stack import Hidden, Stack

bert_norm = functools.partial(LayerNorm, epsilon=1e-12)
bert_layer = functools.partial(
    Block,
    residual=PostNorm,
    norm=bert_norm,
    attention=functools.partial(Attention, qkv_bias=True, out_bias=True),
    mlp=functools.partial(Mlp, activation="gelu", use_bias=True),
)
bert_entry = functools.partial(
    Entry, positions=functools.partial(LearnedPositions, max_length=512), norm=bert_norm, num_types=2
)


class Encoder(nnx.Module):
    """Tokens to hidden states through one stack; every token sees its whole segment if `features.attn_order` is 0.

    The arguments are those of `Decoder`; a `head` of None leaves only the hidden states. There is no cache. What else
    an objective predicts with are `task_heads` by name, e.g. {"pair": PairHead}; they belong to no logits here.
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
        entry: Callable = bert_entry,
        bias: Callable | None = None,
        layers: Callable | Sequence[Callable] = bert_layer,
        first_layers: Sequence[Callable] = (),
        final_norm: Callable | None = None,
        head: Callable | None = MlmHead,
        task_heads: Mapping[str, Callable] = MappingProxyType({}),
        init: Callable[..., Initializers] = normal_init,
        dropout_rate: float = 0.0,
        dtype: str = "float32",
        layer_loop: str | LayerLoop = "unrolled",
        remat: Callable[[Callable], Callable] = save_everything,
        shard: Shard = unsharded,
    ):
        self.sizes = sizes_of(
            d_model=d_model, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, d_ff=d_ff, dtype=dtype
        )
        values = init(num_layers=num_layers, head_dim=self.sizes.head_dim)
        self.vocab_size, self.shard = vocab_size, shard
        self.embedding = embedding(self.sizes, vocab_size=vocab_size, init=values, rngs=rngs)
        self.stack = Stack(
            self.sizes,
            first_layers=first_layers,
            layers=layers,
            num_layers=num_layers,
            layer_loop=layer_loop,
            entry=entry,
            bias=bias,
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
        self.head = head and head(self.sizes, vocab_size=vocab_size, init=values, rngs=rngs)
        made = {name: make(self.sizes, init=values, rngs=rngs) for name, make in task_heads.items()}
        self.task_heads = nnx.Dict(made)

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The last layer's output [B, L, D] and the layers' terms; no key means no dropout."""
        return self.stack(self.embedding(features.tokens), features, dropout_key=dropout_key)

    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """float32 [B, L, V]."""
        if self.head is None:
            raise ValueError("this Encoder has head None and gives hidden states only; give it a head, such as MlmHead")
        logits_BLV = self.head(x_BLD, self.embedding.table[...])
        return self.shard(logits_BLV, "batch", "inner_length", "vocab_activation")

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.logits(self.hidden(features, dropout_key=dropout_key).x_BLD)
