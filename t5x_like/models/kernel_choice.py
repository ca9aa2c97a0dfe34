"""The fastest kernel that computes a request exactly, on the device that is there."""

import jax

from t5x_like.models import cudnn_attention
from t5x_like.models.attention_kernels import Scores, Visible, xla
from t5x_like.models.chunked_attention import chunked
from t5x_like.models.cudnn_attention import cudnn
from t5x_like.models.kv_cache import KeysValues

MOST_PAIRS = 2048 * 2048


def auto(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
) -> jax.Array:
    """cudnn where it can; else xla up to `MOST_PAIRS` pairs of a query and a key in a row, and chunked above."""
    rate = 0.0 if dropout_key is None else dropout_rate
    if cudnn_attention.refusal(q_BLNH, seen, visible, scores, rate) is None:
        kernel = cudnn
    elif q_BLNH.shape[1] * seen.keys_BMGH.shape[1] <= MOST_PAIRS:
        kernel = xla
    else:
        kernel = chunked
    return kernel(q_BLNH, seen, visible, scores, dropout_key=dropout_key, dropout_rate=dropout_rate)
