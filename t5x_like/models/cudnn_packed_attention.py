"""cuDNN's flash attention on rows of packed segments, which skips whatever the segments and the order hide.

Each segment goes in as a sequence of its own (where it begins and how long it is), so there is no mask of L * M
numbers: on an H100 a row of 4,096 tokens in four causal segments takes a sixth of the time of `cudnn`. As with `splash`
the order is fixed when the program is compiled, so the config says which one the data has:

  order='causal'         in every segment, attn_order rises from place to place, and positions by 1
  order='bidirectional'  in every segment, all attn_order are equal; cross attention: any two lengths

Rows that are not as said give NaN, which stops the run. Segments are numbered 1, 2, ... from the first place on, each
in one piece, padding behind them, as the pipeline packs them.

jax.nn.dot_product_attention has no argument for segments, so this calls the function below it, which is not public:
tests/models/test_cudnn_packed_attention.py fails where a new jax moves it.
"""

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as fused

from t5x_like.models import cudnn_attention
from t5x_like.models.attention_kernels import Scores, Visible
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.splash_attention import check_order


def cudnn_packed(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    order: str,
    max_segments: int = 32,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
) -> jax.Array:
    """bfloat16 or float16 on a Hopper GPU or later; raises ValueError for what `refusal` names.

    max_segments   in a row; a row with more gives NaN (Pipeline.examples_per_row bounds them). Time and memory grow
                   with it: forward and backward of 4 such rows take 1.2 ms with 4, 1.5 with 16, 2.7 with 64
    """
    check_order(order)
    if max_segments < 2:
        raise ValueError(f"max_segments {max_segments} must be at least 2; 32 is the default")
    reason = refusal(q_BLNH, seen, scores, order, 0.0 if dropout_key is None else dropout_rate)
    if reason is not None:
        raise ValueError(reason)
    queries, keys = visible.query_segments_BL, visible.key_segments_BM
    # What padding holds never reaches cuDNN's sums, and the gradients that it leaves there, unwritten, go no further.
    q_BLNH, k_BMGH, v_BMGH = (
        real(x, segments) for x, segments in zip((q_BLNH, *seen), (queries, keys, keys), strict=True)
    )
    masks = {"causal": fused.MaskType.PADDING_CAUSAL, "bidirectional": fused.MaskType.PADDING}
    y_BLNH = fused.dot_product_attention(
        q_BLNH,
        k_BMGH,
        v_BMGH,
        q_seqlen=lengths_of(queries, max_segments),
        kv_seqlen=lengths_of(keys, max_segments),
        q_offsets=offsets_of(queries, max_segments),
        kv_offsets=offsets_of(keys, max_segments),
        scale=1.0,
        mask_type=masks[order],
        sliding_window_length=scores.window,
    )
    fits_B = is_in_one_piece(queries, max_segments) & is_in_one_piece(keys, max_segments)
    fits_B &= (queries.max(axis=1) == keys.max(axis=1)) & has_order(visible, order)
    return jnp.where(fits_B[:, None, None, None], real(y_BLNH, queries), jnp.nan).astype(q_BLNH.dtype)


def real(x_BLNH: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Zero at padding, forward and backward."""
    return jnp.where(segments_BL[:, :, None, None] > 0, x_BLNH, jnp.zeros((), x_BLNH.dtype))


def lengths_of(segments_BL: jax.Array, max_segments: int) -> jax.Array:
    """Tokens of each segment, int32 [B, max_segments]; -1 where a row has no such segment.

    1 1 1 2 2 0   ->   3 2 -1 -1
    """
    numbers_1S1 = jnp.arange(1, max_segments + 1)[None, :, None]
    counts_BS = (segments_BL[:, None, :] == numbers_1S1).sum(axis=2, dtype=jnp.int32)
    return jnp.where(counts_BS > 0, counts_BS, -1)


def offsets_of(segments_BL: jax.Array, max_segments: int) -> jax.Array:
    """Where each segment begins, int32 [B, max_segments + 1]; -1 where a row has no such segment.

    1 1 1 2 2 0   ->   0 3 -1 -1 -1
    """
    lengths_BS = lengths_of(segments_BL, max_segments)
    ends_BS = jnp.cumsum(jnp.maximum(lengths_BS, 0), axis=1, dtype=jnp.int32)
    starts_BS = jnp.where(lengths_BS > 0, ends_BS - lengths_BS, -1)
    return jnp.pad(starts_BS, ((0, 0), (0, 1)), constant_values=-1)


def is_in_one_piece(segments_BL: jax.Array, max_segments: int) -> jax.Array:
    """[B] bool: 1 ... 1 2 ... 2 3 ... and padding, no more than `max_segments`."""
    before, after = segments_BL[:, :-1], segments_BL[:, 1:]
    goes_on = (after == before) | ((after == before + 1) & (before > 0)) | (after == 0)
    begins = segments_BL[:, 0] <= 1
    return goes_on.all(axis=1) & begins & (segments_BL.max(axis=1) <= max_segments)


def has_order(visible: Visible, order: str) -> jax.Array:
    """[B] bool: keys and queries of each segment have the order that the config says."""
    queries, keys = visible.query_order_BL, visible.key_order_BM
    if order == "bidirectional":
        return is_flat(visible.query_segments_BL, queries) & is_flat(visible.key_segments_BM, keys)
    segments, places = visible.query_segments_BL, visible.query_positions_BL
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    rises = (queries[:, 1:] > queries[:, :-1]) & (places[:, 1:] == places[:, :-1] + 1)
    itself = (queries == keys) & (segments == visible.key_segments_BM)
    return (rises | ~same).all(axis=1) & itself.all(axis=1)


def is_flat(segments_BL: jax.Array, order_BL: jax.Array) -> jax.Array:
    same = (segments_BL[:, 1:] == segments_BL[:, :-1]) & (segments_BL[:, 1:] > 0)
    return ((order_BL[:, 1:] == order_BL[:, :-1]) | ~same).all(axis=1)


def refusal(q_BLNH: jax.Array, seen: KeysValues, scores: Scores, order: str, dropout_rate: float) -> str | None:
    """Why this cannot be computed exactly whatever the data, in one sentence with the remedy; None if it can."""
    lengths = q_BLNH.shape[1], seen.keys_BMGH.shape[1]
    if (reason := cudnn_attention.lacks(q_BLNH, scores, dropout_rate)) is not None:
        return reason
    if cudnn_attention.compute_capability() < 9.0:
        return "kernel cudnn_packed needs a Hopper GPU or a later one; use cudnn"
    if scores.num_global or (scores.window is not None and order != "causal"):
        return "kernel cudnn_packed has windows for order='causal' alone, and no num_global; use cudnn"
    if order == "causal" and lengths[0] != lengths[1]:
        return (
            f"kernel cudnn_packed with order='causal' needs as many keys as queries, not {lengths[1]} and {lengths[0]}"
        )
    if q_BLNH.shape[2] != seen.keys_BMGH.shape[2] and jax.__version_info__ < (0, 11):
        return f"kernel cudnn_packed reads wrong keys of grouped heads in jax {jax.__version__}; install jax 0.11"
    return None
