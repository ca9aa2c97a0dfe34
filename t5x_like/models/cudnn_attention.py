"""cuDNN's flash attention on NVIDIA GPUs, through jax.nn.dot_product_attention.

Who sees whom goes in as one mask [B, 1, L, M], so every `Visible` and every window is exact; cuDNN turns it into an
additive mask in the type of the queries. Logits and weights are never held.
"""

import jax
import jax.numpy as jnp

from t5x_like.models.attention_kernels import Scores, Visible, mask_of
from t5x_like.models.kv_cache import KeysValues


def cudnn(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
) -> jax.Array:
    """bfloat16 or float16 on a GPU; raises ValueError for what `refusal` names."""
    reason = refusal(q_BLNH, seen, visible, scores, 0.0 if dropout_key is None else dropout_rate)
    if reason is not None:
        raise ValueError(reason)
    return jax.nn.dot_product_attention(**arguments(q_BLNH, seen, visible, scores), implementation="cudnn")


def arguments(q_BLNH: jax.Array, seen: KeysValues, visible: Visible, scores: Scores) -> dict:
    """The request in the words of jax.nn.dot_product_attention; the queries are scaled already."""
    mask_B1LM = mask_of(visible, scores)[:, None]
    return {"query": q_BLNH, "key": seen.keys_BMGH, "value": seen.values_BMGH, "mask": mask_B1LM, "scale": 1.0}


def refusal(q_BLNH: jax.Array, seen: KeysValues, visible: Visible, scores: Scores, dropout_rate: float) -> str | None:
    """Why cuDNN cannot compute this exactly, in one sentence with the remedy; None if it can."""
    lengths = q_BLNH.shape[1], seen.keys_BMGH.shape[1]
    reason = lacks(q_BLNH, scores, dropout_rate)
    if reason is None and (lengths[0] % 2 or lengths[1] % 2):
        return f"kernel cudnn has no gradient for {lengths[0]} queries and {lengths[1]} keys; make both even"
    return reason


def lacks(q_BLNH: jax.Array, scores: Scores, dropout_rate: float) -> str | None:
    """What no form of cuDNN's attention has, in one sentence with the remedy; None if all is there."""
    H = q_BLNH.shape[3]
    if jax.default_backend() != "gpu":
        return f"kernel cudnn runs on NVIDIA GPUs and this is a {jax.default_backend()}; use chunked"
    if q_BLNH.dtype not in (jnp.bfloat16, jnp.float16):
        return f"kernel cudnn has no {q_BLNH.dtype}; set dtype to 'bfloat16', or use chunked"
    if scores.bias_BNLM is not None:
        # It takes mask and bias as one array, so they would be added up to [B, N, L, M] beforehand.
        return "kernel cudnn would hold the bias of every row and head whole; use chunked"
    absent = {"softcap": scores.softcap, "sinks": scores.sinks_N, "attention dropout": dropout_rate or None}
    for name, value in absent.items():
        if value is not None:
            return f"kernel cudnn has no {name}; use chunked"
    if H % 8 or max_head_dim() < H:
        return f"kernel cudnn has no head_dim {H}; use a multiple of 8 up to {max_head_dim()}, or chunked"
    return None


def max_head_dim() -> int:
    """256 since compute capability 9.0 (Hopper), 128 before."""
    return 256 if compute_capability() >= 9.0 else 128


def compute_capability() -> float:
    return float(jax.devices()[0].compute_capability)
