"""Exact attention whose memory grows with the length, not with its square, on any device.

Queries are taken by chunks, and for each the keys by chunks: a running maximum and sum give the softmax without ever
holding a whole row of it (online softmax, arXiv:1805.02867; by chunks, arXiv:2112.05682). The backward pass makes the
weights of a chunk again from the logarithm of that sum (arXiv:2205.14135, appendix B).

                 keys 0-3   4-7   8-11
  queries 0-3       x
          4-7       x        x           causal: chunks without an x are not computed. Which ones is told by the
          8-11      x        x     x     segments, orders and positions of a batch, so packed texts skip each other too
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5x_like.models.attention_kernels import MASKED, Scores, Visible, mask_of
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import dropout


class Tiles(NamedTuple):
    """What is known when the program is compiled. K queries read one of the G key heads."""

    query_chunk: int
    key_chunk: int
    softcap: float | None
    window: int | None
    num_global: int


class Arrays(NamedTuple):
    """What has a gradient. Lengths are whole chunks."""

    q_BLGKH: jax.Array
    k_BMGH: jax.Array
    v_BMGH: jax.Array
    bias_BNLM: jax.Array | None
    sinks_GK: jax.Array | None


class Softmax(NamedTuple):
    """The part of a chunk of queries' softmax that its keys so far give."""

    highest_BGKL: jax.Array
    total_BGKL: jax.Array
    values_BGKLH: jax.Array


def chunked(
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
    """All that `Scores` can say, and any length: chunks that reach beyond it are filled up with padding.

    Logits exist for `query_chunk` x `key_chunk` places at a time. A query that sees nothing gives 0. A bias is held
    whole by whoever made it, here it is only sliced. Dropout has the noise of `xla`, which all queries share.
    """
    if query_chunk < 1 or key_chunk < 1:
        raise ValueError(f"query_chunk {query_chunk} and key_chunk {key_chunk} must be at least 1; 512 is the default")
    B, L, N, H = q_BLNH.shape
    M, G = seen.keys_BMGH.shape[1:3]
    tiles = Tiles(min(query_chunk, L), min(key_chunk, M), scores.softcap, scores.window, scores.num_global)
    more_L, more_M = -L % tiles.query_chunk, -M % tiles.key_chunk
    bias = scores.bias_BNLM
    arrays = Arrays(
        pad(q_BLNH.reshape(B, L, G, N // G, H), more_L),
        pad(seen.keys_BMGH, more_M),
        pad(seen.values_BMGH, more_M),
        bias if bias is None else pad(pad(bias, more_L, axis=2), more_M, axis=3),
        None if scores.sinks_N is None else scores.sinks_N.reshape(G, N // G).astype(jnp.float32),
    )
    padded = Visible(*(pad(x, more) for x, more in zip(visible, (more_L, more_M) * 3, strict=True)))
    kept_BMGK = None
    if dropout_key is not None and dropout_rate > 0:
        kept_BN1M = dropout(jnp.ones((B, N, 1, M), q_BLNH.dtype), dropout_key, rate=dropout_rate, shared_dim=2)
        kept_BMGK = pad(jnp.moveaxis(kept_BN1M[:, :, 0], 1, 2).reshape(B, M, G, N // G), more_M)
    return attend(tiles, arrays, padded, kept_BMGK)[:, :L].reshape(B, L, N, H)


def pad(x: jax.Array, more: int, axis: int = 1) -> jax.Array:
    """Zeros at the end; a segment of 0 is padding, so that these keys are seen by none."""
    return x if more == 0 else jnp.pad(x, [(0, more if dim == axis else 0) for dim in range(x.ndim)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(tiles: Tiles, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None) -> jax.Array:
    return forward(tiles, arrays, visible, kept_BMGK)[0]


def forward(tiles: Tiles, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None):
    """The output, and what the backward pass needs of it."""
    y_BLGKH, log_total_IBGKL = read_all(tiles, arrays, visible, kept_BMGK)
    # Saved in float32: rounded, it would make the gradient of bfloat16 queries twice as wrong as that of `xla`.
    return y_BLGKH.astype(arrays.q_BLGKH.dtype), (arrays, visible, kept_BMGK, y_BLGKH, log_total_IBGKL)


def read_all(tiles: Tiles, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None):
    """What the queries read and, by their chunks, the logarithm of the softmax's sum; both float32."""
    arrays, visible = tied(arrays, visible)
    meet_IJ = chunks_that_meet(tiles, visible)

    def read(i):
        q_BLGKH = cut(arrays.q_BLGKH, i, tiles.query_chunk)

        def add(state, j):
            def more(state):
                logits_BGKLM, mask_BLM = logits_of(tiles, arrays, visible, i, j)[1:]
                return extend(state, logits_BGKLM, mask_BLM, *keys_of(tiles, arrays.v_BMGH, kept_BMGK, j))

            return jax.lax.cond(meet_IJ[i, j], more, lambda state: state, state), None

        state = jax.lax.scan(add, start(q_BLGKH, arrays.sinks_GK), jnp.arange(meet_IJ.shape[1]))[0]
        sees_BGKL = state.total_BGKL > 0
        total_BGKL = jnp.where(sees_BGKL, state.total_BGKL, 1.0)
        y_BGKLH = state.values_BGKLH / total_BGKL[..., None]
        return jnp.moveaxis(y_BGKLH, 3, 1), state.highest_BGKL + jnp.log(total_BGKL)

    y_IBLGKH, log_total_IBGKL = jax.lax.map(read, jnp.arange(meet_IJ.shape[0]))
    return joined(y_IBLGKH), log_total_IBGKL


def tied(arrays: Arrays, visible: Visible) -> tuple[Arrays, Visible]:
    """Both as they are. Who sees whom is the same in all layers, and jax computes what is the same in every turn of a
    scan before it: the masks of all chunks, [L, M] again. So they are made to depend on what is not.
    """
    return jax.lax.optimization_barrier((arrays, visible))


def start(q_BLGKH: jax.Array, sinks_GK: jax.Array | None) -> Softmax:
    """Nothing seen yet, or the sink, whose value is 0."""
    B, L, G, K, H = q_BLGKH.shape
    values_BGKLH = jnp.zeros((B, G, K, L, H), jnp.float32)
    if sinks_GK is None:
        return Softmax(jnp.full((B, G, K, L), MASKED), jnp.zeros((B, G, K, L)), values_BGKLH)
    return Softmax(jnp.broadcast_to(sinks_GK[None, :, :, None], (B, G, K, L)), jnp.ones((B, G, K, L)), values_BGKLH)


def extend(state: Softmax, logits_BGKLM, mask_BLM, v_BMGH, kept_BGKLM) -> Softmax:
    """The softmax with the keys of one more chunk: what was summed so far is scaled to the new maximum."""
    mask_BGKLM = mask_BLM[:, None, None]
    highest_BGKL = jnp.maximum(state.highest_BGKL, jnp.where(mask_BGKLM, logits_BGKLM, MASKED).max(axis=-1))
    weights_BGKLM = jnp.where(mask_BGKLM, jnp.exp(logits_BGKLM - highest_BGKL[..., None]), 0.0)
    scale_BGKL = jnp.exp(state.highest_BGKL - highest_BGKL)
    read_BGKLH = multiply("BGKLM,BMGH->BGKLH", (weights_BGKLM * kept_BGKLM).astype(v_BMGH.dtype), v_BMGH)
    return Softmax(
        highest_BGKL,
        state.total_BGKL * scale_BGKL + weights_BGKLM.sum(axis=-1),
        state.values_BGKLH * scale_BGKL[..., None] + read_BGKLH,
    )


def backward(tiles: Tiles, saved, dy_BLGKH: jax.Array):
    found = all_gradients(tiles, saved, dy_BLGKH)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), found, saved[0]), None, None


def all_gradients(tiles: Tiles, saved, dy_BLGKH: jax.Array) -> Arrays:
    """Of the arrays, in float32; those of keys, values and bias are added up over chunks of queries."""
    arrays, visible, kept_BMGK, y_BLGKH, log_total_IBGKL = saved
    arrays, visible = tied(arrays, visible)
    meet_IJ = chunks_that_meet(tiles, visible)
    inner_BGKL = jnp.einsum("BLGKH,BLGKH->BGKL", dy_BLGKH, y_BLGKH, preferred_element_type=jnp.float32)

    def of_queries(total, i):
        dy = cut(dy_BLGKH, i, tiles.query_chunk)
        rows = dy, cut(inner_BGKL, i, tiles.query_chunk, axis=3), log_total_IBGKL[i]

        def of_keys(carry, j):
            dq, total = carry
            shapes = jax.eval_shape(lambda: gradients(tiles, arrays, visible, kept_BMGK, rows, i, j))
            new = jax.lax.cond(
                meet_IJ[i, j],
                lambda: gradients(tiles, arrays, visible, kept_BMGK, rows, i, j),
                lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            )
            keys = jax.tree.map(lambda sum, x: added(sum, x, (0, j * tiles.key_chunk)), total[:2], new[1:3])
            bias_at = (0, 0, i * tiles.query_chunk, j * tiles.key_chunk)
            bias = jax.tree.map(lambda sum, x: added(sum, x, bias_at), total[2], new[3])
            return (dq + new[0], (*keys, bias)), None

        (dq, total), _ = jax.lax.scan(of_keys, (jnp.zeros(dy.shape), total), jnp.arange(meet_IJ.shape[1]))
        return total, dq

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), (arrays.k_BMGH, arrays.v_BMGH, arrays.bias_BNLM))
    (dk, dv, dbias), dq_IBLGKH = jax.lax.scan(of_queries, zeros, jnp.arange(meet_IJ.shape[0]))
    dsinks = None
    if arrays.sinks_GK is not None:
        log_total_BGKL = jnp.moveaxis(log_total_IBGKL, 0, 3).reshape(inner_BGKL.shape)
        dsinks = -(jnp.exp(arrays.sinks_GK[None, :, :, None] - log_total_BGKL) * inner_BGKL).sum(axis=(0, 3))
    return Arrays(joined(dq_IBLGKH), dk, dv, dbias, dsinks)


attend.defvjp(forward, backward)


def gradients(tiles: Tiles, arrays: Arrays, visible: Visible, kept_BMGK: jax.Array | None, rows, i, j):
    """What one chunk of queries and one of keys add to the gradients of q, k, v and bias, in float32."""
    dy_BLGKH, inner_BGKL, log_total_BGKL = rows
    q_BLGKH, k_BMGH = cut(arrays.q_BLGKH, i, tiles.query_chunk), cut(arrays.k_BMGH, j, tiles.key_chunk)
    v_BMGH, kept_BGKLM = keys_of(tiles, arrays.v_BMGH, kept_BMGK, j)
    slope_BGKLM, logits_BGKLM, mask_BLM = logits_of(tiles, arrays, visible, i, j)
    powers_BGKLM = jnp.exp(jnp.where(mask_BLM[:, None, None], logits_BGKLM - log_total_BGKL[..., None], MASKED))
    dv_BMGH = multiply("BGKLM,BLGKH->BMGH", (powers_BGKLM * kept_BGKLM).astype(v_BMGH.dtype), dy_BLGKH)
    dweights_BGKLM = multiply("BLGKH,BMGH->BGKLM", dy_BLGKH, v_BMGH) * kept_BGKLM
    dlogits_BGKLM = powers_BGKLM * (dweights_BGKLM - inner_BGKL[..., None])
    dproduct_BGKLM = (dlogits_BGKLM * slope_BGKLM).astype(q_BLGKH.dtype)
    return (
        multiply("BGKLM,BMGH->BLGKH", dproduct_BGKLM, k_BMGH),
        multiply("BGKLM,BLGKH->BMGH", dproduct_BGKLM, q_BLGKH),
        dv_BMGH,
        None if arrays.bias_BNLM is None else summed_to(dlogits_BGKLM, arrays.bias_BNLM.shape[:2]),
    )


def logits_of(tiles: Tiles, arrays: Arrays, visible: Visible, i, j):
    """Of one chunk: the slope of the cap (1 without one), the logits [B, G, K, L, M], and the mask [B, L, M]."""
    q_BLGKH, k_BMGH = cut(arrays.q_BLGKH, i, tiles.query_chunk), cut(arrays.k_BMGH, j, tiles.key_chunk)
    logits_BGKLM, slope = multiply("BLGKH,BMGH->BGKLM", q_BLGKH, k_BMGH), 1.0
    _, G, K, L, M = logits_BGKLM.shape
    if tiles.softcap is not None:
        tanh_BGKLM = jnp.tanh(logits_BGKLM / tiles.softcap)
        logits_BGKLM, slope = tiles.softcap * tanh_BGKLM, 1.0 - tanh_BGKLM**2
    if arrays.bias_BNLM is not None:
        bias_BNLM = cut(cut(arrays.bias_BNLM, i, L, axis=2), j, M, axis=3)
        bias_BNLM = jnp.broadcast_to(bias_BNLM, (bias_BNLM.shape[0], G * K, L, M))
        logits_BGKLM = logits_BGKLM + bias_BNLM.reshape(-1, G, K, L, M)
    sizes = (tiles.query_chunk, tiles.key_chunk) * 3
    here = Visible(*(cut(x, i if n % 2 == 0 else j, sizes[n]) for n, x in enumerate(visible)))
    return slope, logits_BGKLM, mask_of(here, Scores(window=tiles.window, num_global=tiles.num_global))


def keys_of(tiles: Tiles, v_BMGH: jax.Array, kept_BMGK: jax.Array | None, j):
    """The values of a chunk of keys, and the dropout factor of each of its weights (1 without dropout)."""
    if kept_BMGK is None:
        return cut(v_BMGH, j, tiles.key_chunk), 1.0
    kept_BGKM = jnp.moveaxis(cut(kept_BMGK, j, tiles.key_chunk), 1, 3)
    return cut(v_BMGH, j, tiles.key_chunk), kept_BGKM[:, :, :, None]


def chunks_that_meet(tiles: Tiles, visible: Visible) -> jax.Array:
    """[I, J] bool: no for chunks of which surely no query sees a key. Looks only at smallest and largest numbers."""
    far = jnp.iinfo(jnp.int32).max

    def bounds(segments, numbers, size):
        """Smallest and largest of each chunk [B, chunks], padding apart."""
        cuts = (segments.shape[0], -1, size)
        is_real = segments.reshape(cuts) > 0
        low = jnp.where(is_real, numbers.reshape(cuts), far).min(axis=2)
        return low, jnp.where(is_real, numbers.reshape(cuts), -1).max(axis=2)

    def of(queries, keys):
        low_I, high_I = bounds(visible.query_segments_BL, queries, tiles.query_chunk)
        low_J, high_J = bounds(visible.key_segments_BM, keys, tiles.key_chunk)
        return low_I[:, :, None], high_I[:, :, None], low_J[:, None], high_J[:, None]

    low_I, high_I, low_J, high_J = of(visible.query_segments_BL, visible.key_segments_BM)
    meet_BIJ = (low_I <= high_J) & (low_J <= high_I)
    _, last_I, first_J, _ = of(visible.query_order_BL, visible.key_order_BM)
    meet_BIJ &= first_J <= last_I
    if tiles.window is not None:
        low_I, high_I, low_J, high_J = of(visible.query_positions_BL, visible.key_positions_BM)
        is_near = (low_J < high_I + tiles.window) & (low_I < high_J + tiles.window)
        meet_BIJ &= is_near | (low_I < tiles.num_global) | (low_J < tiles.num_global)
    return meet_BIJ.any(axis=0)


def multiply(dims: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(dims, x, y, preferred_element_type=jnp.float32)


def cut(x: jax.Array, number, size: int, axis: int = 1) -> jax.Array:
    """The chunk of that number."""
    return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)


def added(total: jax.Array, part: jax.Array, at: tuple) -> jax.Array:
    """`total` with `part` added at a place; dims that `at` does not reach begin at 0."""
    at = (*at, *(0,) * (total.ndim - len(at)))
    return jax.lax.dynamic_update_slice(total, jax.lax.dynamic_slice(total, at, part.shape) + part, at)


def joined(x_IBLGKH: jax.Array) -> jax.Array:
    """Chunks of queries one after the other."""
    I, B, L, *rest = x_IBLGKH.shape
    return jnp.moveaxis(x_IBLGKH, 0, 1).reshape(B, I * L, *rest)


def summed_to(x_BGKLM: jax.Array, dims_BN: tuple[int, int]) -> jax.Array:
    """[B, N, L, M], summed over rows, or heads, where the bias has only one."""
    B, G, K, L, M = x_BGKLM.shape
    x_BNLM = x_BGKLM.reshape(B, G * K, L, M)
    axes = tuple(dim for dim, size in enumerate(dims_BN) if size == 1)
    return x_BNLM.sum(axis=axes, keepdims=True)
