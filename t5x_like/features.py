"""The one structure that reaches the device, and the one attention rule.

Every method is told apart by its numbers here, never by code in the model or in the train step:

  method                attn_order of a row of 5
  bidirectional         0 0 0 0 0
  causal                0 1 2 3 4
  prefix of 3           0 0 0 1 2
  right to left         4 3 2 1 0

Works on NumPy and on JAX arrays alike, and imports neither.
"""

from typing import Any, NamedTuple


class Features(NamedTuple):
    """A batch of rows, each of one or more segments packed side by side. NumPy on the host, JAX on the device.

    tokens        int32   [B, L]     what the stack reads
    targets       int32   [B, L]     what it predicts at the same place
    loss_weights  float32 [B, L]     0 where nothing is predicted (padding is told by this and by segments, not by ids)
    segment_ids   int32   [B, L]     1, 2, ... per packed example; 0 is padding
    positions     int32   [B, L, P]  counted from 0 in each segment; P = 1 except for 2-D positions (GLM)
    attn_order    int32   [B, L]     who may look at whom, see `may_attend`
    type_ids      int32   [B, L]     or None: segment types (BERT), languages (XLM)
    patches       float32 [B, I, C]  or None: an image's patches, each C numbers (height * width * channels)
    aux           {name: [B, L]}     or None: what further terms of a loss read, at the place that it belongs to; other
                                     places are told as distances, so that packing changes nothing
    encoder       Features or None: the other side of an encoder-decoder; its targets and loss_weights are None
    """

    tokens: Any
    targets: Any
    loss_weights: Any
    segment_ids: Any
    positions: Any
    attn_order: Any
    type_ids: Any = None
    patches: Any = None
    aux: dict[str, Any] | None = None
    encoder: "Features | None" = None


def may_attend(query_segments, key_segments, query_order, key_order):
    """Which key each query may look at, [..., L, M] bool: same segment, not padding, and not later in the order.

    Covers bidirectional, causal, prefix, right-to-left, UniLM's, GLM's and PaliGemma's masks. With both orders zero it
    is the mask of cross attention.
    """
    keys = key_segments[..., None, :]
    same_segment = (query_segments[..., :, None] == keys) & (keys > 0)
    return same_segment & (key_order[..., None, :] <= query_order[..., :, None])
