"""ELECTRA (arXiv:2003.10555, section 2): a small masked language model proposes tokens, an encoder finds them.

  tokens with <mask> --> generator --> logits [B, L, V] -- the objective draws --> tokens --> discriminator --> [B, L]

Both read one embedding: tokens, positions, types and their norm are shared, and each projects them to its own width
(section 3.2).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.embeddings import FactorisedEmbedding, FactorisedEntry
from t5x_like.models.encoder import Encoder, bert_entry
from t5x_like.models.heads import MlmHead
from t5x_like.models.initializers import Initializers, normal_init
from t5x_like.models.layers import Shard, unsharded
from t5x_like.models.stack import Hidden
from t5x_like.models.task_heads import ReplacedTokenHead


class Replaced(NamedTuple):
    """float32 [B, L]: the log odds that a token is not the original one; and the terms of the layers."""

    logits_BL: jax.Array
    terms: dict[str, Term]


class Discriminator(nnx.Module):
    """An encoder, and for each token the log odds that it is not the original one.

    width     of the embedding (ELECTRA small: 128; base and large: that of the encoder)
    entry     of that width
    encoder   makes an Encoder, given its embedding and entry, without a head
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        encoder: Callable,
        rngs: nnx.Rngs,
        entry: Callable = bert_entry,
        head: Callable = ReplacedTokenHead,
        init: Callable[..., Initializers] = normal_init,
        shard: Shard = unsharded,
    ):
        self.vocab_size = vocab_size
        self.encoder: Encoder = encoder(
            vocab_size=vocab_size,
            embedding=functools.partial(FactorisedEmbedding, width=width),
            entry=functools.partial(FactorisedEntry, width=width, entry=entry),
            head=None,
            shard=shard,
            rngs=rngs,
        )
        sizes = self.encoder.sizes
        self.head = head(sizes, init=init(num_layers=1, head_dim=sizes.head_dim), rngs=rngs)

    def replaced(self, features: Features, *, dropout_key: jax.Array | None = None) -> Replaced:
        x_BLD, terms = self.encoder.hidden(features, dropout_key=dropout_key)
        return Replaced(self.head(x_BLD), terms)

    def __call__(self, features: Features, *, dropout_key: jax.Array | None = None) -> jax.Array:
        return self.replaced(features, dropout_key=dropout_key).logits_BL


class GeneratorDiscriminator(nnx.Module):
    """Two encoders over one embedding.

    generator       makes an Encoder, given its embedding, entry and head; about 1/4 to 1/2 of the other's width
    discriminator   makes the other Encoder, as `encoder` of a Discriminator, whose arguments the others are
    head            of the generator, given `width`
    replaced_head   of the discriminator
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        generator: Callable,
        discriminator: Callable,
        rngs: nnx.Rngs,
        entry: Callable = bert_entry,
        head: Callable = MlmHead,
        replaced_head: Callable = ReplacedTokenHead,
        init: Callable[..., Initializers] = normal_init,
        shard: Shard = unsharded,
    ):
        self.vocab_size = vocab_size
        told = {"vocab_size": vocab_size, "shard": shard, "rngs": rngs}
        self.discriminator = Discriminator(
            **told, width=width, encoder=discriminator, entry=entry, head=replaced_head, init=init
        )
        embedding, narrow = self.discriminator.encoder.embedding, self.discriminator.encoder.stack.entry.narrow
        self.generator: Encoder = generator(
            **told,
            embedding=lambda sizes, **told: embedding,
            entry=functools.partial(FactorisedEntry, width=width, entry=lambda sizes, **told: narrow),
            head=functools.partial(head, width=width),
        )

    def hidden(self, features: Features, *, dropout_key: jax.Array | None = None) -> Hidden:
        """The generator's output [B, L, G] for masked tokens, and its layers' terms."""
        return self.generator.hidden(features, dropout_key=dropout_key)

    def logits(self, x_BLG: jax.Array) -> jax.Array:
        """The generator's logits, float32 [B, L, V]."""
        return self.generator.logits(x_BLG)

    def replaced(self, features: Features, *, dropout_key: jax.Array | None = None) -> Replaced:
        """What the discriminator thinks of tokens of which some were replaced."""
        return self.discriminator.replaced(features, dropout_key=dropout_key)
