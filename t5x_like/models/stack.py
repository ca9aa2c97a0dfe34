"""A block of residual parts, and a stack of blocks: scanned or unrolled, whole rows at once or through a cache.

Scanned and unrolled stacks hold the same values, drawn with the same keys: scanning only adds a leading axis "layers".
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.features import Features, may_attend
from t5x_like.models.initializers import Initializers
from t5x_like.models.kv_cache import Cache, KeysValues, LayerCache, Write, write_at, write_from_start
from t5x_like.models.layers import Shard, Sizes, dropout, split_key
from t5x_like.models.positions import Rotation

# step(block, x_BLD, one layer's input) -> (x_BLD, one layer's output)
Step = Callable[[nnx.Module, jax.Array, Any], tuple[jax.Array, Any]]


class Parts(NamedTuple):
    """What a block is made of: functions that make each part. `cross_attention` is None in an encoder or a decoder."""

    norm: Callable
    attention: Callable
    mlp: Callable
    positions: Callable
    cross_attention: Callable | None = None


class Surroundings(NamedTuple):
    """What every layer sees besides its input."""

    mask_BLM: jax.Array
    bias_BNLM: jax.Array | None
    rotation: Rotation | None
    cross_mask_BLM: jax.Array | None


class Block(nnx.Module):
    """x + part(norm(x)) for self-attention, cross attention if there is one, and the MLP."""

    def __init__(
        self, sizes: Sizes, parts: Parts, *, init: Initializers, dropout_rate: float, shard: Shard, rngs: nnx.Rngs
    ):
        make = {"init": init, "rngs": rngs, "dropout_rate": dropout_rate, "shard": shard}
        self.dropout_rate, self.shard = dropout_rate, shard
        self.attention_norm = parts.norm(sizes)
        self.attention = parts.attention(sizes, **make)
        reads_encoder = parts.cross_attention is not None
        self.cross_attention_norm = parts.norm(sizes) if reads_encoder else None
        self.cross_attention = parts.cross_attention(sizes, **make) if reads_encoder else None
        self.mlp_norm = parts.norm(sizes)
        self.mlp = parts.mlp(sizes, **make)

    def __call__(
        self,
        x_BLD: jax.Array,
        around: Surroundings,
        *,
        remember: Callable[[KeysValues], KeysValues],
        cross: KeysValues | None,
        dropout_key: jax.Array | None,
    ) -> tuple[jax.Array, KeysValues]:
        """The block's output, and the keys and values it read: `remember(new)` says which, the new ones or also old."""
        keys = split_key(dropout_key, 6)
        y_BLD = self.attention_norm(x_BLD)
        seen = remember(self.attention.keys_values(y_BLD, around.rotation))
        y_BLD = self.attention(
            y_BLD,
            seen,
            mask_BLM=around.mask_BLM,
            bias_BNLM=around.bias_BNLM,
            rotation=around.rotation,
            dropout_key=keys[0],
        )
        x_BLD = self.add(x_BLD, y_BLD, keys[1])
        if self.cross_attention is not None:
            y_BLD = self.cross_attention_norm(x_BLD)
            y_BLD = self.cross_attention(y_BLD, cross, mask_BLM=around.cross_mask_BLM, dropout_key=keys[2])
            x_BLD = self.add(x_BLD, y_BLD, keys[3])
        y_BLD = self.mlp(self.mlp_norm(x_BLD), dropout_key=keys[4])
        return self.add(x_BLD, y_BLD, keys[5]), seen

    def add(self, x_BLD: jax.Array, y_BLD: jax.Array, key: jax.Array | None) -> jax.Array:
        x_BLD = x_BLD + dropout(y_BLD, key, rate=self.dropout_rate)
        return self.shard(x_BLD, "batch", "length", "embed_activation")

    def cross_keys_values(self, encoded_BMD: jax.Array | None) -> KeysValues | None:
        return None if self.cross_attention is None else self.cross_attention.keys_values(encoded_BMD, None)


class Stack(nnx.Module):
    """Positions, blocks and the final norm: everything between an embedding and a head."""

    def __init__(
        self,
        sizes: Sizes,
        parts: Parts,
        *,
        num_layers: int,
        bidirectional: bool,
        scan_layers: bool,
        remat: Callable[[Callable], Callable],
        init: Initializers,
        dropout_rate: float,
        final_dropout_rate: float,
        shard: Shard,
        rngs: nnx.Rngs,
    ):
        self.sizes, self.num_layers, self.shard, self.remat = sizes, num_layers, shard, remat
        self.dropout_rate, self.final_dropout_rate = dropout_rate, final_dropout_rate
        self.loop = SCANNED if scan_layers else UNROLLED
        self.positions = parts.positions(sizes, bidirectional=bidirectional, init=init, rngs=rngs)
        make_block = functools.partial(Block, sizes, parts, init=init, dropout_rate=dropout_rate, shard=shard)
        self.layers = self.loop.create(make_block, jax.random.split(rngs.params(), num_layers))
        self.final_norm = parts.norm(sizes)

    def __call__(
        self,
        x_BLD: jax.Array,
        features: Features,
        *,
        encoded_BMD: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Whole rows at once: who sees whom is in the features, who reads the encoder is told by segments."""
        first_key, layers_key, final_key = split_key(dropout_key, 3)
        segments, order = features.segment_ids, features.attn_order
        around = Surroundings(
            mask_BLM=may_attend(segments, segments, order, order),
            bias_BNLM=self.positions.bias(x_BLD.shape[1]),
            rotation=self.positions.rotation(features.positions),
            cross_mask_BLM=None if encoded_BMD is None else same_segment(segments, features.encoder.segment_ids),
        )

        def step(block, x_BLD, key):
            cross = block.cross_keys_values(encoded_BMD)
            x_BLD, _ = block(x_BLD, around, remember=lambda new: new, cross=cross, dropout_key=key)
            return x_BLD, None

        x_BLD = self.shard(self.positions.embed(x_BLD, features.positions), "batch", "length", "embed_activation")
        x_BLD = dropout(x_BLD, first_key, rate=self.dropout_rate)
        keys = self.loop.keys(layers_key, self.num_layers)
        x_BLD, _ = self.loop.run(self.remat, step, self.layers, x_BLD, keys)
        return dropout(self.final_norm(x_BLD), final_key, rate=self.final_dropout_rate)

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """Room for `max_length` tokens in each of `batch_size` rows."""
        shape = (batch_size, max_length, self.sizes.num_kv_heads, self.sizes.head_dim)
        empty = jnp.zeros(shape, self.sizes.dtype)
        return Cache(
            layers=self.loop.repeat(LayerCache(own=KeysValues(empty, empty), cross=None), self.num_layers),
            segments_BM=jnp.zeros((batch_size, max_length), jnp.int32),
            order_BM=jnp.zeros((batch_size, max_length), jnp.int32),
            lengths_B=jnp.zeros(batch_size, jnp.int32),
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
        return jnp.take_along_axis(x_BLD, last_B11, axis=1), cache._replace(lengths_B=lengths_B)

    def decode_step(self, x_B1D: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """The hidden state of one more token per row [B, 1, D]: it comes after everything, in place and in order."""
        last_order_B = jnp.max(jnp.where(cache.segments_BM > 0, cache.order_BM, -1), axis=1)
        one_B1 = jnp.ones((x_B1D.shape[0], 1), jnp.int32)
        features = Features(
            tokens=None,
            targets=None,
            loss_weights=None,
            segment_ids=one_B1,
            positions=cache.lengths_B[:, None, None],
            attn_order=last_order_B[:, None] + 1,
        )
        x_B1D, cache = self.extend(
            x_B1D, features, cache, write=write_at(cache.lengths_B), cross_of=lambda block, layer: layer.cross
        )
        return x_B1D, cache._replace(lengths_B=cache.lengths_B + 1)

    def extend(
        self,
        x_BLD: jax.Array,
        features: Features,
        cache: Cache,
        *,
        write: Write,
        cross_of: Callable[[Block, LayerCache], KeysValues | None],
    ) -> tuple[jax.Array, Cache]:
        """Writes tokens into the cache and runs them against all that is in it."""
        segments, order = features.segment_ids, features.attn_order
        cache = cache._replace(segments_BM=write(cache.segments_BM, segments), order_BM=write(cache.order_BM, order))
        encoder_segments = cache.encoder_segments_BM
        around = Surroundings(
            mask_BLM=may_attend(segments, cache.segments_BM, order, cache.order_BM),
            bias_BNLM=self.positions.bias_at(features.positions, cache.segments_BM.shape[1]),
            rotation=self.positions.rotation(features.positions),
            cross_mask_BLM=None if encoder_segments is None else same_segment(segments, encoder_segments),
        )

        def step(block, x_BLD, layer):
            cross = cross_of(block, layer)
            x_BLD, own = block(
                x_BLD,
                around,
                remember=lambda new: jax.tree.map(write, layer.own, new),
                cross=cross,
                dropout_key=None,
            )
            return x_BLD, LayerCache(own, cross)

        x_BLD = self.positions.embed(x_BLD, features.positions)
        x_BLD, layers = self.loop.run(save_everything, step, self.layers, x_BLD, cache.layers)
        return self.final_norm(x_BLD), cache._replace(layers=layers)


def same_segment(query_segments_BL: jax.Array, key_segments_BM: jax.Array) -> jax.Array:
    """The mask of cross attention [B, L, M]: segments alone."""
    no_order_BL, no_order_BM = jnp.zeros_like(query_segments_BL), jnp.zeros_like(key_segments_BM)
    return may_attend(query_segments_BL, key_segments_BM, no_order_BL, no_order_BM)


# Rematerialisation: remat(layer) -> layer, which says what of a layer's forward pass is kept for its backward pass.


def save_everything(layer: Callable) -> Callable:
    """Keeps all: fastest, most memory."""
    return layer


def save_nothing(layer: Callable) -> Callable:
    """Keeps only each layer's input, and runs the layer again in the backward pass."""
    return jax.checkpoint(layer)


@dataclasses.dataclass(frozen=True)
class LayerLoop:
    """How layers are made and run: `run(remat, step, layers, x, per_layer) -> (x, per_layer_out)`."""

    create: Callable
    run: Callable
    keys: Callable  # (key or None, number) -> a key or None for each layer
    repeat: Callable  # (tree, number) -> the tree for each layer


def create_unrolled(make_block: Callable, keys: jax.Array) -> nnx.List:
    return nnx.List([make_block(rngs=nnx.Rngs(params=key)) for key in keys])


def run_unrolled(remat: Callable, step: Step, layers: nnx.List, x_BLD: jax.Array, per_layer: Sequence):
    outputs = []
    for block, one in zip(layers, per_layer, strict=True):
        x_BLD, output = remat(functools.partial(step, block))(x_BLD, one)
        outputs.append(output)
    return x_BLD, outputs


def create_scanned(make_block: Callable, keys: jax.Array) -> nnx.Module:
    """One block whose every parameter has a leading axis "layers"."""

    def values(key):
        return nnx.as_pure(nnx.state(make_block(rngs=nnx.Rngs(params=key)), nnx.Param))

    block = nnx.eval_shape(lambda: make_block(rngs=nnx.Rngs(params=keys[0])))
    graphdef, state = nnx.split(block)
    for _, param in nnx.to_flat_state(state):
        param.set_metadata(axes=("layers", *param.get_metadata()["axes"]))
    stacked = nnx.merge(graphdef, state)
    nnx.update(stacked, jax.vmap(values)(keys))
    return stacked


def run_scanned(remat: Callable, step: Step, layers: nnx.Module, x_BLD: jax.Array, per_layer):
    graphdef, state = nnx.split(layers)

    def body(x_BLD, one):
        values, inputs = one
        return step(nnx.merge(graphdef, values), x_BLD, inputs)

    return jax.lax.scan(remat(body), x_BLD, (state, per_layer))


def keys_scanned(key: jax.Array | None, num_layers: int) -> jax.Array | None:
    return None if key is None else jax.random.split(key, num_layers)


def repeat_scanned(tree: Any, num_layers: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (num_layers, *x.shape)), tree)


UNROLLED = LayerLoop(create_unrolled, run_unrolled, keys=split_key, repeat=lambda tree, number: [tree] * number)
SCANNED = LayerLoop(create_scanned, run_scanned, keys=keys_scanned, repeat=repeat_scanned)
