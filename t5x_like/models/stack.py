"""Entry, layers and final norm: all between an embedding and a head; whole rows at once or through a cache."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.attention_kernels import Visible, across
from t5x_like.models.blocks import Surroundings
from t5x_like.models.initializers import Initializers
from t5x_like.models.kv_cache import Cache, KeysValues, LayerCache, Write, write_at, write_from_start
from t5x_like.models.layer_loops import Beside, LayerLoop, Location, kinds_of, layer_loop_named, save_everything
from t5x_like.models.layers import Shard, Sizes, dropout, split_key


class Hidden(NamedTuple):
    """The output of the last layer, and the terms that the layers add to the loss, summed over layers."""

    x_BLD: jax.Array
    terms: dict[str, Term]


class RowsBeside(NamedTuple):
    """Of each row: who sees whom, and the encoder's output where a stack reads one."""

    segments_BL: jax.Array
    order_BL: jax.Array
    positions_BLP: jax.Array
    encoder_segments_BM: jax.Array | None
    encoded_BMD: jax.Array | None


class Stack(nnx.Module):
    """The argument `bias` makes what is added to the attention logits of all layers alike (T5, ALiBi), or is None."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        first_layers: Sequence[Callable],
        layers: Callable | Sequence[Callable],
        num_layers: int,
        layer_loop: str | LayerLoop,
        entry: Callable,
        bias: Callable | None,
        final_norm: Callable | None,
        bidirectional: bool,
        reads_encoder: bool,
        remat: Callable[[Callable], Callable],
        init: Initializers,
        dropout_rate: float,
        final_dropout_rate: float,
        shard: Shard,
        rngs: nnx.Rngs,
    ):
        self.sizes, self.shard, self.remat = sizes, shard, remat
        self.dropout_rate, self.final_dropout_rate = dropout_rate, final_dropout_rate
        self.loop = layer_loop_named(layer_loop)
        self.entry = entry(sizes, init=init, rngs=rngs)
        self.bias = bias and bias(sizes, bidirectional=bidirectional, rngs=rngs)
        kinds = kinds_of(first_layers, layers, num_layers)
        told = {"bidirectional": bidirectional, "reads_encoder": reads_encoder, "init": init}
        told |= {"dropout_rate": dropout_rate, "shard": shard}
        self.kinds = kinds._replace(
            first=tuple(functools.partial(make, sizes, **told) for make in kinds.first),
            cycle=tuple(functools.partial(make, sizes, **told) for make in kinds.cycle),
        )
        self.layers = self.loop.create(self.kinds, jax.random.split(rngs.params(), num_layers))
        self.final_norm = final_norm and final_norm(sizes.d_model)

    def locations(self) -> list[Location]:
        """Where the parameters of each layer are, below the stack's own name."""
        return self.loop.locate(self.kinds)

    def layer(self, number: int) -> nnx.Module:
        """Layer `number`: its parts and settings; in a scanned stack its arrays are those of all layers of its kind."""
        module = self
        for name in self.locations()[number].prefix.split("/"):
            module = module[int(name)] if name.isdigit() else (module[name] if name != "layers" else module.layers)
        return module

    def __call__(
        self,
        x_BLD: jax.Array,
        features: Features,
        *,
        encoded_BMD: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> Hidden:
        """Whole rows at once: who sees whom is in the features, who reads the encoder is told by segments."""
        first_key, layers_key, final_key = split_key(dropout_key, 3)
        length = x_BLD.shape[1]
        rows = RowsBeside(
            features.segment_ids,
            features.attn_order,
            features.positions,
            None if encoded_BMD is None else features.encoder.segment_ids,
            encoded_BMD,
        )

        def step(block, x_BLD, key, beside):
            rows = beside.of_rows
            segments, order, places = rows.segments_BL, rows.order_BL, rows.positions_BLP[:, :, 0]
            around = Surroundings(
                visible=Visible(segments, segments, order, order, places, places),
                positions_BLP=rows.positions_BLP,
                is_real_BL=segments > 0,
                bias_BNLM=beside.shared,
                bias_of=lambda bias: bias.of_rows(length),
                cross_visible=None if rows.encoded_BMD is None else across(segments, rows.encoder_segments_BM),
            )
            cross = block.cross_keys_values(rows.encoded_BMD)
            output = block(x_BLD, around, remember=lambda new: new, cross=cross, dropout_key=key)
            return output.x_BLD, output.terms

        x_BLD = self.shard(self.entry(x_BLD, features), "batch", "length", "embed_activation")
        x_BLD = dropout(x_BLD, first_key, rate=self.dropout_rate)
        beside = Beside(rows, self.bias and self.bias.of_rows(length))
        x_BLD, terms = self.loop.run(self.remat, step, self.layers, x_BLD, self.keys(layers_key), beside)
        return Hidden(dropout(self.finish(x_BLD), final_key, rate=self.final_dropout_rate), sum_terms(terms))

    def keys(self, key: jax.Array | None):
        """A dropout key for each layer, or None for each."""
        if key is None:
            return self.loop.repeat(self.kinds, None)
        return self.loop.deal(self.kinds, jax.random.split(key, self.kinds.num_layers))

    def finish(self, x_BLD: jax.Array) -> jax.Array:
        return x_BLD if self.final_norm is None else self.final_norm(x_BLD)

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """Room for `max_length` tokens in each of `batch_size` rows."""
        shape = (batch_size, max_length, self.sizes.num_kv_heads, self.sizes.head_dim)
        empty = jnp.zeros(shape, self.sizes.dtype)
        return Cache(
            layers=self.loop.repeat(self.kinds, LayerCache(own=KeysValues(empty, empty), cross=None)),
            segments_BM=jnp.zeros((batch_size, max_length), jnp.int32),
            order_BM=jnp.zeros((batch_size, max_length), jnp.int32),
            lengths_B=jnp.zeros(batch_size, jnp.int32),
            positions_BP=jnp.zeros((batch_size, len(self.entry.steps)), jnp.int32),
        )

    def prefill(
        self, x_BLD: jax.Array, features: Features, cache: Cache, *, encoded_BMD: jax.Array | None = None
    ) -> tuple[jax.Array, Cache]:
        """The hidden state of each row's last token [B, 1, D], and the cache with the prompt in it.

        Rows hold one segment each, padded at the end, and keep the order of attention that the features give them.
        """
        if x_BLD.shape[1] > cache.segments_BM.shape[1]:
            raise ValueError(f"prompt of {x_BLD.shape[1]} places in a cache of {cache.segments_BM.shape[1]}")
        segments_BL = (features.segment_ids > 0).astype(jnp.int32)
        lengths_B = segments_BL.sum(axis=1)
        if encoded_BMD is not None:
            cache = cache._replace(encoder_segments_BM=(features.encoder.segment_ids > 0).astype(jnp.int32))
        x_BLD, cache = self.extend(
            x_BLD,
            features._replace(segment_ids=segments_BL),
            cache,
            write=write_from_start,
            cross_of=lambda block, layer: block.cross_keys_values(encoded_BMD),
        )
        last_B11 = jnp.maximum(lengths_B - 1, 0)[:, None, None]
        positions_BP = (
            jnp.take_along_axis(features.positions, last_B11, axis=1)[:, 0] + jnp.array(self.entry.steps)[None]
        )
        cache = cache._replace(lengths_B=lengths_B, positions_BP=positions_BP)
        return jnp.take_along_axis(x_BLD, last_B11, axis=1), cache

    def decode_step(self, x_B1D: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """The hidden state of one more token per row [B, 1, D]: it comes after everything, in place and in order."""
        last_order_B = jnp.max(jnp.where(cache.segments_BM > 0, cache.order_BM, -1), axis=1)
        one_B1 = jnp.ones((x_B1D.shape[0], 1), jnp.int32)
        features = Features(
            tokens=None,
            targets=None,
            loss_weights=None,
            segment_ids=one_B1,
            positions=cache.positions_BP[:, None],
            attn_order=last_order_B[:, None] + 1,
        )
        x_B1D, cache = self.extend(
            x_B1D, features, cache, write=write_at(cache.lengths_B), cross_of=lambda block, layer: layer.cross
        )
        return x_B1D, cache._replace(
            lengths_B=cache.lengths_B + 1, positions_BP=cache.positions_BP + jnp.array(self.entry.steps)[None]
        )

    def extend(
        self,
        x_BLD: jax.Array,
        features: Features,
        cache: Cache,
        *,
        write: Write,
        cross_of: Callable[[nnx.Module, LayerCache], KeysValues | None],
    ) -> tuple[jax.Array, Cache]:
        """Writes tokens into the cache and runs them against all that is in it."""
        segments, order, places = features.segment_ids, features.attn_order, features.positions[:, :, 0]
        cache = cache._replace(segments_BM=write(cache.segments_BM, segments), order_BM=write(cache.order_BM, order))
        size, encoder_segments = cache.segments_BM.shape[1], cache.encoder_segments_BM
        slots_BM = jnp.broadcast_to(jnp.arange(size)[None], cache.segments_BM.shape)
        around = Surroundings(
            visible=Visible(segments, cache.segments_BM, order, cache.order_BM, places, slots_BM),
            positions_BLP=features.positions,
            is_real_BL=segments > 0,
            bias_BNLM=self.bias and self.bias.of_places(features.positions, size),
            bias_of=lambda bias: bias.of_places(features.positions, size),
            cross_visible=None if encoder_segments is None else across(segments, encoder_segments),
        )

        def step(block, x_BLD, layer, beside):
            output = block(
                x_BLD,
                around,
                remember=lambda new: jax.tree.map(write, layer.own, new),
                cross=(cross := cross_of(block, layer)),
                dropout_key=None,
            )
            return output.x_BLD, LayerCache(output.seen, cross)

        x_BLD = self.entry(x_BLD, features)
        x_BLD, layers = self.loop.run(save_everything, step, self.layers, x_BLD, cache.layers)
        return self.finish(x_BLD), cache._replace(layers=layers)


def sum_terms(per_layer: Any) -> dict[str, Term]:
    """Terms of the same name, added up over layers; a scanned layer's are stacked."""
    total: dict[str, Term] = {}
    for terms in jax.tree.leaves(per_layer, is_leaf=lambda node: isinstance(node, dict)):
        for name, term in terms.items():
            flat = Term(term.sum.sum(), term.weight.sum())
            total[name] = jax.tree.map(jnp.add, total[name], flat) if name in total else flat
    return total
