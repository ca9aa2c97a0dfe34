"""The kernel that suits a request on the device that is there; all of them compute it exactly.

Where `xla` ends is measured on two busy CPU cores: forward and backward of a row, 8 heads of 64, float32, medians of 5,
in milliseconds, causal and bidirectional. The order on accelerators was not measured; there it also bounds memory.

  length       256         512          1024          2048           4096
  xla       6.7   7.8   36   54     153   132     884   661    3882   4778
  chunked   6.2    10   31   79      85   111     271   398     953   3077

On an H100, forward and backward of 4 rows of 4,096 places, 32 heads of 64 over 8 key heads, bfloat16, four causal
segments a row: cudnn 7.7 ms, cudnn_packed 1.2 ms.
"""

import functools

import jax

from t5x_like.models import cudnn_attention, cudnn_packed_attention, splash_attention
from t5x_like.models.attention_kernels import Scores, Visible, xla
from t5x_like.models.chunked_attention import chunked
from t5x_like.models.cudnn_attention import cudnn
from t5x_like.models.cudnn_packed_attention import cudnn_packed
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.splash_attention import splash

MOST_PAIRS = 512 * 512


def auto(
    q_BLNH: jax.Array,
    seen: KeysValues,
    visible: Visible,
    scores: Scores,
    *,
    order: str | None = None,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
) -> jax.Array:
    """The fastest exact one: splash, cudnn_packed, cudnn, xla up to `MOST_PAIRS` pairs of a query and a key, chunked.

    order   'causal' or 'bidirectional': what all rows of this attention have, as `splash` and `cudnn_packed` are told;
            None: any
    """
    rate = 0.0 if dropout_key is None else dropout_rate
    kernel = chunked
    if order and platform() == "tpu" and splash_attention.refusal(q_BLNH, seen, visible, scores, order, rate) is None:
        kernel = functools.partial(splash, order=order)
    elif order and cudnn_packed_attention.refusal(q_BLNH, seen, scores, order, rate) is None:
        kernel = functools.partial(cudnn_packed, order=order)
    elif cudnn_attention.refusal(q_BLNH, seen, visible, scores, rate) is None:
        kernel = cudnn
    elif q_BLNH.shape[1] * seen.keys_BMGH.shape[1] <= MOST_PAIRS:
        kernel = xla
    return kernel(q_BLNH, seen, visible, scores, dropout_key=dropout_key, dropout_rate=dropout_rate)


def platform() -> str:
    """What the program that is traced will run on; a mesh may be of devices that are not here."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
