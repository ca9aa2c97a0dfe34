"""Attention of rows that lie on several devices: keys and values go round, queries stay (arXiv:2310.01889).

  turn            0        1        2        3
  device 0   q0   k0 v0    k3 v3    k2 v2    k1 v1      each turn, every device hands its keys and values, with their
  device 1   q1   k1 v1    k0 v0    k3 v3    k2 v2      segments, orders and positions, to the next one, while it reads
  device 2   q2   k2 v2    k1 v1    k0 v0    k3 v3      them as `chunked` does; the softmax is put together from
  device 3   q3   k3 v3    k2 v2    k1 v1    k0 v0      the logarithms of its parts' sums

No device ever holds the keys of a whole row. In the backward pass their gradients travel with them, and come home.

`ring` reads rows as they lie: of causal ones device 0 reads one of four pieces and device 3 all, and everybody waits
for it. `balanced_ring` first gives every device one piece from the front and one from the back of the row (0 and 7, 1
and 6, ... of eight), as Llama 3 was trained (arXiv:2407.21783, section 3.3.2), and gives the answers back after it.
Texts packed into one row, prefixes and windows need nothing of their own: who sees whom travels with the keys.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from t5x_like.device_parts import over_axes
from t5x_like.models import chunked_attention
from t5x_like.models.attention_kernels import MASKED, Scores, Visible
from t5x_like.models.chunked_attention import Arrays, Tiles, chunked, multiply, pad
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import dropout

AXIS = "context"
BY_LENGTH = P(None, AXIS)  # dim 1 of every array
LAST_OF_FOUR = P(None, None, None, AXIS)


class Ring(NamedTuple):
    """What is known when the program is compiled; chunks are those of a device's own piece."""

    num_devices: int
    tiles: Tiles


class Keys(NamedTuple):
    """What travels: keys, values, dropout factors or None, and who may see them."""

    k_BMGH: jax.Array
    v_BMGH: jax.Array
    kept_BMGK: jax.Array | None
    segments_BM: jax.Array
    order_BM: jax.Array
    positions_BM: jax.Array


class Request(NamedTuple):
    """Whole rows, as `chunked_attention` reads them."""

    arrays: Arrays
    visible: Visible
    kept_BMGK: jax.Array | None


def ring(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
    query_chunk: int = 512,
    key_chunk: int = 512,
) -> jax.Array:
    """All that `chunked` computes, on the mesh that this is traced for; where that does not split rows, `chunked`.

    A bias [., N, L, M] is held by its rows, so its memory grows with L * M / devices.
    """
    given = {"dropout_key": dropout_key, "dropout_rate": dropout_rate}
    num_devices = jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)
    chunks = {"query_chunk": query_chunk, "key_chunk": key_chunk}
    if num_devices == 1:
        return chunked(q_BLNH, seen, visible, scores, **given, **chunks)
    check_pieces(q_BLNH.shape[1], seen.keys_BMGH.shape[1], num_devices)
    how, request = asked(num_devices, q_BLNH, seen, visible, scores, **given, **chunks)
    return attend(how, *request).reshape(q_BLNH.shape)


def balanced_ring(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
    query_chunk: int = 512,
    key_chunk: int = 512,
) -> jax.Array:
    """`ring` with the work of causal rows spread evenly. Sends queries, keys, values and answers once more."""
    given = {"dropout_key": dropout_key, "dropout_rate": dropout_rate}
    num_devices = jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)
    chunks = {"query_chunk": query_chunk, "key_chunk": key_chunk}
    if num_devices == 1:
        return chunked(q_BLNH, seen, visible, scores, **given, **chunks)
    M = seen.keys_BMGH.shape[1]
    check_pieces(q_BLNH.shape[1], M, 2 * num_devices)
    how, (arrays, *who) = asked(num_devices, q_BLNH, seen, visible, scores, **given, **chunks)
    visible, kept_BMGK = jax.tree.map(lambda x: spread(x, num_devices), tuple(who))
    q_BLGKH, k_BMGH, v_BMGH = (spread(x, num_devices) for x in arrays[:3])
    bias = arrays.bias_BNLM
    if bias is not None:
        pieces_M = np.arange(M).reshape(2 * num_devices, -1)
        spread_M = np.stack([pieces_M[:num_devices], pieces_M[: num_devices - 1 : -1]], axis=1).ravel()
        bias = spread(bias, num_devices, dim=2)[..., spread_M]
    arrays = Arrays(q_BLGKH, k_BMGH, v_BMGH, bias, arrays.sinks_GK)
    return back_in_order(attend(how, arrays, visible, kept_BMGK), num_devices).reshape(q_BLNH.shape)


def asked(
    num_devices: int,
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    dropout_key: jax.Array | None,
    dropout_rate: float,
    query_chunk: int,
    key_chunk: int,
) -> tuple[Ring, Request]:
    B, L, N, H = q_BLNH.shape
    M, G = seen.keys_BMGH.shape[1:3]
    query_chunk, key_chunk = min(query_chunk, L // num_devices), min(key_chunk, M // num_devices)
    tiles = Tiles(query_chunk, key_chunk, scores.softcap, scores.window, scores.num_global)
    sinks_GK = None if scores.sinks_N is None else scores.sinks_N.reshape(G, N // G).astype(jnp.float32)
    arrays = Arrays(q_BLNH.reshape(B, L, G, N // G, H), *seen, scores.bias_BNLM, sinks_GK)
    kept_BMGK = None
    if dropout_key is not None and dropout_rate > 0:
        kept_BN1M = dropout(jnp.ones((B, N, 1, M), q_BLNH.dtype), dropout_key, rate=dropout_rate, shared_dim=2)
        kept_BMGK = jnp.moveaxis(kept_BN1M[:, :, 0], 1, 2).reshape(B, M, G, N // G)
    return Ring(num_devices, tiles), Request(arrays, visible, kept_BMGK)


def check_pieces(num_queries: int, num_keys: int, num_pieces: int) -> None:
    for name, length in (("queries", num_queries), ("keys", num_keys)):
        if length % num_pieces:
            raise ValueError(
                f"rows of {length} {name} do not divide into the ring's {num_pieces} pieces: make the length a "
                f"multiple of {num_pieces}"
            )


def over_pieces(function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`function` on each device's own piece of the rows."""
    return over_axes(function, (AXIS,), in_specs, out_specs)


def handed_on(tree: Any, num_devices: int) -> Any:
    """What the device before held."""
    pairs = [(device, (device + 1) % num_devices) for device in range(num_devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, pairs), tree)


# Forward and backward.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(ring: Ring, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None) -> jax.Array:
    return forward(ring, arrays, visible, kept_BMGK)[0]


def specs_of(arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None) -> tuple[Any, ...]:
    bias = None if arrays.bias_BNLM is None else P(None, None, AXIS)
    of_arrays = Arrays(BY_LENGTH, BY_LENGTH, BY_LENGTH, bias, None if arrays.sinks_GK is None else P())
    return of_arrays, Visible(*[BY_LENGTH] * len(visible)), None if kept_BMGK is None else BY_LENGTH


def forward(ring: Ring, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None):
    """The output, and what the backward pass needs of it."""
    given = arrays, visible, kept_BMGK
    read = over_pieces(functools.partial(read_round, ring), (P(AXIS), *specs_of(*given)), (BY_LENGTH, LAST_OF_FOUR))
    y_BLGKH, log_total_BGKL = read(jnp.arange(ring.num_devices), *given)
    return y_BLGKH.astype(arrays.q_BLGKH.dtype), (*given, y_BLGKH, log_total_BGKL)


def read_round(ring: Ring, place_1: jax.Array, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None):
    """What one device's queries read, and the logarithm of the softmax's sum, both float32."""
    B, L, G, K, H = arrays.q_BLGKH.shape

    def read(state, keys, turn):
        y_BLGKH, log_total_BGKL = state
        part_BLGKH, log_part_IBGKL = chunked_attention.read_all(
            ring.tiles, *piece_of(ring, arrays, visible, keys, owner(ring, place_1, turn))
        )
        log_part_BGKL = without_chunks(log_part_IBGKL)[..., :L]
        together_BGKL = jnp.logaddexp(log_total_BGKL, log_part_BGKL)
        old_BGKL, new_BGKL = jnp.exp(log_total_BGKL - together_BGKL), jnp.exp(log_part_BGKL - together_BGKL)
        return y_BLGKH * by_query(old_BGKL) + part_BLGKH[:, :L] * by_query(new_BGKL), together_BGKL

    def turn_once(carry, turn):
        state, keys = carry
        return (read(state, keys, turn), handed_on(keys, ring.num_devices)), None

    sinks_GK = jnp.full((G, K), MASKED) if arrays.sinks_GK is None else arrays.sinks_GK
    state = jnp.zeros((B, L, G, K, H)), jnp.broadcast_to(sinks_GK[None, :, :, None], (B, G, K, L))
    last = ring.num_devices - 1
    carry, _ = jax.lax.scan(turn_once, (state, keys_of(arrays, visible, kept_BMGK)), jnp.arange(last))
    return read(*carry, last)


def backward(ring: Ring, saved, dy_BLGKH: jax.Array):
    specs = specs_of(*saved[:3])
    in_specs = (P(AXIS), *specs, BY_LENGTH, LAST_OF_FOUR, BY_LENGTH)
    collect = over_pieces(functools.partial(gradients_round, ring), in_specs, specs[0])
    found = collect(jnp.arange(ring.num_devices), *saved, dy_BLGKH)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), found, saved[0]), None, None


attend.defvjp(forward, backward)


def gradients_round(ring: Ring, place_1, arrays: Arrays, visible, kept_BMGK, y_BLGKH, log_total_BGKL, dy_BLGKH):
    """On one device, all float32; those of keys and values travel with them and are home after a whole round."""
    L, tiles = arrays.q_BLGKH.shape[1], ring.tiles
    more_L = -L % tiles.query_chunk
    by_chunks = by_chunks_of(tiles, pad(log_total_BGKL, more_L, axis=3))
    of_queries = pad(y_BLGKH, more_L), by_chunks

    def turn_once(carry, turn):
        keys, dk_BMGH, dv_BMGH, dq_BLGKH, dbias_BNLM = carry
        from_place = owner(ring, place_1, turn)
        piece = piece_of(ring, arrays, visible, keys, from_place)
        new = chunked_attention.all_gradients(tiles, (*piece, *of_queries), pad(dy_BLGKH, more_L))
        M = dk_BMGH.shape[1]
        if dbias_BNLM is not None:
            at = (0, 0, 0, from_place * M)
            dbias_BNLM = jax.lax.dynamic_update_slice(dbias_BNLM, new.bias_BNLM[:, :, :L, :M], at)
        travelling = keys, dk_BMGH + new.k_BMGH[:, :M], dv_BMGH + new.v_BMGH[:, :M]
        return (*handed_on(travelling, ring.num_devices), dq_BLGKH + new.q_BLGKH[:, :L], dbias_BNLM), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), (arrays.k_BMGH, arrays.v_BMGH, arrays.q_BLGKH, arrays.bias_BNLM))
    carry = keys_of(arrays, visible, kept_BMGK), *zeros
    (_, dk, dv, dq, dbias), _ = jax.lax.scan(turn_once, carry, jnp.arange(ring.num_devices))
    dsinks = None
    if arrays.sinks_GK is not None:
        inner_BGKL = multiply("BLGKH,BLGKH->BGKL", dy_BLGKH, y_BLGKH)
        share_BGKL = jnp.exp(arrays.sinks_GK[None, :, :, None] - log_total_BGKL)
        dsinks = jax.lax.psum(-(share_BGKL * inner_BGKL).sum(axis=(0, 3)), AXIS)
    return Arrays(dq, dk, dv, dbias, dsinks)


def keys_of(arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None) -> Keys:
    who = visible.key_segments_BM, visible.key_order_BM, visible.key_positions_BM
    return Keys(arrays.k_BMGH, arrays.v_BMGH, kept_BMGK, *who)


def owner(ring: Ring, place_1: jax.Array, turn: jax.Array | int) -> jax.Array:
    """Whose keys a device holds in this turn. Its place comes as data: not every backend can be asked for it here."""
    return (place_1[0] - turn) % ring.num_devices


def piece_of(ring: Ring, arrays: Arrays, visible: Visible, keys: Keys, from_place: jax.Array):
    """One device's queries and the keys of another, filled up to whole chunks: what `chunked_attention` is asked.

    Without sinks: a row has only one, which the start of the round counts.
    """
    (L, M), tiles = (arrays.q_BLGKH.shape[1], keys.k_BMGH.shape[1]), ring.tiles
    more_L, more_M = -L % tiles.query_chunk, -M % tiles.key_chunk
    bias = arrays.bias_BNLM
    if bias is not None:
        bias = jax.lax.dynamic_slice_in_dim(bias, from_place * M, M, axis=3)
        bias = pad(pad(bias, more_L, axis=2), more_M, axis=3)
    whole = Arrays(pad(arrays.q_BLGKH, more_L), pad(keys.k_BMGH, more_M), pad(keys.v_BMGH, more_M), bias, None)
    queries = visible.query_segments_BL, visible.query_order_BL, visible.query_positions_BL
    theirs = keys.segments_BM, keys.order_BM, keys.positions_BM
    who = [
        pad(x, more)
        for pair in zip(queries, theirs, strict=True)
        for x, more in zip(pair, (more_L, more_M), strict=True)
    ]
    return whole, Visible(*who), None if keys.kept_BMGK is None else pad(keys.kept_BMGK, more_M)


def without_chunks(x_IBGKL: jax.Array) -> jax.Array:
    x_BGKIL = jnp.moveaxis(x_IBGKL, 0, 3)
    return x_BGKIL.reshape(*x_BGKIL.shape[:3], -1)


def by_chunks_of(tiles: Tiles, x_BGKL: jax.Array) -> jax.Array:
    return jnp.moveaxis(x_BGKL.reshape(*x_BGKL.shape[:3], -1, tiles.query_chunk), 3, 0)


def by_query(x_BGKL: jax.Array) -> jax.Array:
    return jnp.moveaxis(x_BGKL, 3, 1)[..., None]


# Of the 2n pieces of a row, device i holds 2i and 2i + 1 where rows lie in order, and i and 2n - 1 - i where they are
# spread. Either way it has an even piece and an odd one, so two permutations of devices bring all to their places.


def spread(x: jax.Array, num_devices: int, dim: int = 1) -> jax.Array:
    def move(place_1, x):
        even, odd = jnp.split(x, 2, axis=dim)
        even, odd = (jax.lax.ppermute(x, AXIS, homes(num_devices, first)) for first, x in enumerate((even, odd)))
        return even_first_on_even(place_1, even, odd, dim)

    return moved(move, x, num_devices, dim)


def back_in_order(x: jax.Array, num_devices: int, dim: int = 1) -> jax.Array:
    def move(place_1, x):
        even, odd = jnp.split(even_first_on_even(place_1, *jnp.split(x, 2, axis=dim), dim), 2, axis=dim)
        back = [[(to, device) for device, to in homes(num_devices, first)] for first in (0, 1)]
        return jnp.concatenate(
            [jax.lax.ppermute(x, AXIS, pairs) for x, pairs in zip((even, odd), back, strict=True)], axis=dim
        )

    return moved(move, x, num_devices, dim)


def moved(move: Callable, x: jax.Array, num_devices: int, dim: int) -> jax.Array:
    spec = P(*[None] * dim, AXIS)
    return over_pieces(move, (P(AXIS), spec), spec)(jnp.arange(num_devices), x)


def homes(num_devices: int, first: int) -> list[tuple[int, int]]:
    """(device, the device that its even piece (first 0) or its odd one (first 1) goes to)."""
    pieces = range(first, 2 * num_devices, 2)
    return [(device, min(piece, 2 * num_devices - 1 - piece)) for device, piece in enumerate(pieces)]


def even_first_on_even(place_1: jax.Array, x: jax.Array, y: jax.Array, dim: int) -> jax.Array:
    """x before y on devices of even number, y before x on others: piece i stands before 2n - 1 - i."""
    return jnp.where(place_1[0] % 2 == 0, jnp.concatenate([x, y], axis=dim), jnp.concatenate([y, x], axis=dim))
