"""Splash attention on TPU: a Pallas kernel that skips the blocks that its mask hides, forward and backward.

Its mask is fixed when the program is compiled, but who sees whom is data here (`features.attn_order`). So the config
says which order the data has, and this kernel believes it:

  order='causal'         in every segment, attn_order rises from place to place (0 1 2 ...), and positions by 1
  order='bidirectional'  in every segment, all attn_order are equal, and positions rise by 1
                         cross attention: no order and no positions, any two lengths

`require_order` checks batches on the host; other orders (prefix, UniLM, GLM) need another kernel. Segments are data as
ever. XLA cannot split a Pallas kernel by itself, so each device is given its own rows and heads here.
"""

import difflib
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as pallas
from jax.sharding import PartitionSpec as P

from t5x_like.features import Features
from t5x_like.models.attention_kernels import Scores, Visible
from t5x_like.models.kv_cache import KeysValues

ORDERS = ("causal", "bidirectional")
ROWS, HEADS, PIECES = ("data", "fsdp", "expert"), "tensor", "context"  # mesh axes that may split them
LANES = 128  # the width of a TPU register: blocks are multiples of it


def splash(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    order: str,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
    block: int = 512,
    interpret: bool = False,
) -> jax.Array:
    """Raises ValueError for what `refusal` names. Padding sees padding, which nobody reads.

    block       places per block of queries and of keys, or the largest multiple of 128 below it that divides the length
    interpret   runs the kernel in plain JAX, on any device and slowly: for tests
    """
    if block < LANES or block % LANES:
        raise ValueError(f"block {block} is not a multiple of {LANES}; 512 is the default")
    reason = refusal(q_BLNH, seen, visible, scores, order, 0.0 if dropout_key is None else dropout_rate)
    if reason is not None:
        raise ValueError(reason)
    L, M, N = q_BLNH.shape[1], seen.keys_BMGH.shape[1], q_BLNH.shape[2]
    queries, keys = block_of(L, block), block_of(M, block)
    attend = pallas.make_splash_mha(
        pallas.MultiHeadMask([static_mask(order, (L, M), scores.window)] * (N // sizes_of_mesh().get(HEADS, 1))),
        block_sizes=pallas.BlockSizes(
            block_q=queries,
            block_kv=keys,
            block_q_dkv=queries,
            block_kv_dkv=keys,
            block_q_dq=queries,
            block_kv_dq=keys,
        ),
        attn_logits_soft_cap=scores.softcap,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    q_BNLH, k_BGMH, v_BGMH = (jnp.swapaxes(x, 1, 2) for x in (q_BLNH, *seen))
    segments = pallas.SegmentIds(visible.query_segments_BL, visible.key_segments_BM)
    y_BNLH = on_each_device(jax.vmap(attend))(q_BNLH, k_BGMH, v_BGMH, segments)
    return jnp.swapaxes(y_BNLH, 1, 2).astype(q_BLNH.dtype)


def sizes_of_mesh() -> dict[str, int]:
    """Of the mesh that the program is traced for; empty for one device."""
    return dict(jax.sharding.get_abstract_mesh().shape)


def on_each_device(attend: Callable) -> Callable:
    """`attend` of each device's own rows and heads."""
    sizes = sizes_of_mesh()
    rows = tuple(axis for axis in ROWS if sizes.get(axis, 1) > 1)
    heads = HEADS if sizes.get(HEADS, 1) > 1 else None
    if not rows and heads is None:
        return attend
    by_head = P(rows or None, heads)
    specs = by_head, by_head, by_head, P(rows or None)
    mesh = jax.sharding.get_abstract_mesh()
    free = set(mesh.axis_names) - set(mesh.manual_axes)  # within a stage the others are
    return jax.shard_map(attend, in_specs=specs, out_specs=by_head, axis_names=free, check_vma=False)


def static_mask(order: str, shape: tuple[int, int], window: int | None):
    """Of the places of a row; segments come on top of it."""
    if order == "causal":
        return pallas.CausalMask(shape) if window is None else pallas.LocalMask(shape, (window - 1, 0), 0)
    return pallas.FullMask(shape) if window is None else pallas.LocalMask(shape, (window - 1, window - 1), 0)


def block_of(length: int, block: int) -> int:
    return max(size for size in range(LANES, min(block, length) + 1, LANES) if length % size == 0)


def refusal(
    q_BLNH: jax.Array, seen: KeysValues, visible: Visible, scores: Scores, order: str, dropout_rate: float
) -> str | None:
    """Why splash cannot compute this, in one sentence with the remedy; None if it can."""
    check_order(order)
    absent = {
        "bias": scores.bias_BNLM,
        "sinks": scores.sinks_N,
        "num_global": scores.num_global or None,
        "attention dropout": dropout_rate or None,
    }
    for name, value in absent.items():
        if value is not None:
            return f"kernel splash has no {name}; use chunked"
    L, M = q_BLNH.shape[1], seen.keys_BMGH.shape[1]
    if L % LANES or M % LANES:
        return f"kernel splash has no {L} queries and {M} keys; make the lengths multiples of {LANES}, or use chunked"
    if order == "causal" and L != M:
        return f"kernel splash with order='causal' needs as many keys as queries, not {M} and {L}; use auto to decode"
    sizes = sizes_of_mesh()
    num_rows, num_heads = math.prod(sizes.get(axis, 1) for axis in ROWS), sizes.get(HEADS, 1)
    B, G = seen.keys_BMGH.shape[0], seen.keys_BMGH.shape[2]
    if B % num_rows or G % num_heads:
        return f"kernel splash cannot give {B} rows and {G} key heads to {num_rows} x {num_heads} devices; use chunked"
    if sizes.get(PIECES, 1) > 1:
        return f"kernel splash reads whole rows and the mesh cuts them in {sizes[PIECES]}; use ring"
    return None


def check_order(order: str) -> None:
    if order not in ORDERS:
        nearest = difflib.get_close_matches(str(order), ORDERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"order {order!r} is not one of {', '.join(ORDERS)}; nearest is {nearest!r}")


def require_order(features: Features, order: str) -> None:
    """Raises unless one side of a NumPy batch has the order that `splash` is told. For the encoder pass its features.

    Every pair of neighbouring real places is of one segment or begins a new one; a segment lies in one piece.
    """
    check_order(order)
    segments, orders, places = features.segment_ids, features.attn_order, features.positions[:, :, 0]
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    step = np.diff(orders, axis=1)
    fits = step > 0 if order == "causal" else step == 0
    meant = "rise from place to place" if order == "causal" else "be one number"
    complain(same & ~fits, f"order={order!r} asks that attn_order {meant} in each segment", orders)
    complain(same & (np.diff(places, axis=1) != 1), "splash asks that positions rise by 1 in each segment", places)
    for row, ids in enumerate(segments):
        starts = ids[np.flatnonzero(np.diff(ids, prepend=0))]
        starts = starts[starts > 0]
        if len(np.unique(starts)) < len(starts):
            raise ValueError(f"row {row}: splash asks that each segment lie in one piece; use chunked")


def complain(is_wrong: np.ndarray, rule: str, numbers: np.ndarray) -> None:
    """Raises at the first pair of neighbours that is wrong."""
    if not is_wrong.any():
        return
    row, place = np.argwhere(is_wrong)[0]
    found = f"{numbers[row, place]} and {numbers[row, place + 1]}"
    raise ValueError(f"row {row}, places {place} and {place + 1}: {rule}, but they have {found}; use chunked")
