"""Who may look at whom, and the plainest way to compute it. Every other way stands in a file of its own.

kernel(q_BLNH, seen, visible, scores, dropout_key=, dropout_rate=) -> y_BLNH, with q already scaled. A kernel computes
all that `Visible` and `Scores` say, or refuses with one sentence; it never leaves a part out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5x_like.features import may_attend
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import dropout

MASKED = -1e30  # finite, so that a row that may see nothing (padding) gives an average and not NaN


class Visible(NamedTuple):
    """Segment, order and position of every query and key: all that decides who may look at whom."""

    query_segments_BL: jax.Array
    key_segments_BM: jax.Array
    query_order_BL: jax.Array
    key_order_BM: jax.Array
    query_positions_BL: jax.Array
    key_positions_BM: jax.Array


def across(query_segments_BL: jax.Array, key_segments_BM: jax.Array) -> Visible:
    """Cross attention: segments alone, no order and no distance."""
    none_BL, none_BM = jnp.zeros_like(query_segments_BL), jnp.zeros_like(key_segments_BM)
    return Visible(query_segments_BL, key_segments_BM, none_BL, none_BM, none_BL, none_BM)


class Scores(NamedTuple):
    """What else happens between q k and the softmax, in this order: cap, bias, window, sinks.

    softcap     logits become softcap * tanh(logits / softcap) (Gemma 2, arXiv:2408.00118, section 2)
    bias_BNLM   added; its first two dims may be 1
    window      only keys nearer than so many positions (Mistral, arXiv:2310.06825); None is all
    num_global  the first positions of a segment see, and are seen, through windows (Longformer, arXiv:2004.05150)
    sinks_N     a logit per head that takes its share of the softmax and gives nothing (gpt-oss, arXiv:2508.10925)
    """

    softcap: float | None = None
    bias_BNLM: jax.Array | None = None
    window: int | None = None
    num_global: int = 0
    sinks_N: jax.Array | None = None


def mask_of(visible: Visible, scores: Scores) -> jax.Array:
    """[B, L, M] bool: the rule of `features.may_attend`, and the window."""
    segments = visible.query_segments_BL, visible.key_segments_BM
    mask_BLM = may_attend(*segments, visible.query_order_BL, visible.key_order_BM)
    if scores.window is None:
        return mask_BLM
    query_BL1, key_B1M = visible.query_positions_BL[:, :, None], visible.key_positions_BM[:, None]
    is_global = (query_BL1 < scores.num_global) | (key_B1M < scores.num_global)
    return mask_BLM & ((jnp.abs(query_BL1 - key_B1M) < scores.window) | is_global)


def xla(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
) -> jax.Array:
    """All logits at once, in float32: memory grows with L * M. Any mask, bias and layout, on any device."""
    B, L, N, H = q_BLNH.shape
    M, G = seen.keys_BMGH.shape[1:3]
    q_BLGKH = q_BLNH.reshape(B, L, G, N // G, H)  # K queries read one key head
    logits = jnp.einsum("BLGKH,BMGH->BGKLM", q_BLGKH, seen.keys_BMGH, preferred_element_type=jnp.float32)
    logits_BNLM = logits.reshape(B, N, L, M)
    if scores.softcap is not None:
        logits_BNLM = scores.softcap * jnp.tanh(logits_BNLM / scores.softcap)
    if scores.bias_BNLM is not None:
        logits_BNLM = logits_BNLM + jnp.broadcast_to(scores.bias_BNLM, logits_BNLM.shape)
    logits_BNLM = jnp.where(mask_of(visible, scores)[:, None], logits_BNLM, MASKED)
    weights_BNLM = softmax(logits_BNLM, scores.sinks_N).astype(q_BLNH.dtype)
    weights_BNLM = dropout(weights_BNLM, dropout_key, rate=dropout_rate, shared_dim=2)
    weights_BGKLM = weights_BNLM.reshape(B, G, N // G, L, M)
    return jnp.einsum("BGKLM,BMGH->BLGKH", weights_BGKLM, seen.values_BMGH).reshape(B, L, N, H)


def softmax(logits_BNLM: jax.Array, sinks_N: jax.Array | None) -> jax.Array:
    """Softmax over the keys and, where there is one, the head's sink."""
    if sinks_N is None:
        return jax.nn.softmax(logits_BNLM)
    B, N, L, _ = logits_BNLM.shape
    sinks_BNL1 = jnp.broadcast_to(sinks_N[None, :, None, None].astype(jnp.float32), (B, N, L, 1))
    return jax.nn.softmax(jnp.concatenate([logits_BNLM, sinks_BNL1], axis=-1))[..., :-1]
