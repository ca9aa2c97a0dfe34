"""Attention with grouped heads: keys and values are made once, read by queries through a mask."""

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.models.initializers import Initializers
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import Shard, Sizes, add_bias, dropout, parameter, project, unsharded, zeros
from t5x_like.models.positions import Rotation, rotate

MASKED = -1e30  # finite, so that a row that may see nothing (padding) gives an average and not NaN


class Attention(nnx.Module):
    """Multi-head (G = N), grouped-query (G < N, arXiv:2305.13245) and multi-query (G = 1) attention.

    Logits are multiplied by H ** head_dim_power: -0.5 is the Transformer's, 0 is T5's (its query init takes that over).
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        head_dim_power: float = -0.5,
        use_bias: bool = False,
        dropout_rate: float = 0.0,
        shard: Shard = unsharded,
    ):
        D, N, G, H = sizes.d_model, sizes.num_heads, sizes.num_kv_heads, sizes.head_dim
        self.dtype, self.dropout_rate, self.shard = sizes.dtype, dropout_rate, shard
        self.logit_scale = H**head_dim_power
        self.query = parameter(rngs, init.query, (D, N, H), ("embed", "heads", "head_dim"), fan_in=D)
        self.key = parameter(rngs, init.key_value, (D, G, H), ("embed", "kv_heads", "head_dim"), fan_in=D)
        self.value = parameter(rngs, init.key_value, (D, G, H), ("embed", "kv_heads", "head_dim"), fan_in=D)
        self.out = parameter(rngs, init.attention_out, (N, H, D), ("heads", "head_dim", "embed"), fan_in=N * H)
        self.query_bias = zeros((N, H), ("heads", "head_dim")) if use_bias else None
        self.key_bias = zeros((G, H), ("kv_heads", "head_dim")) if use_bias else None
        self.value_bias = zeros((G, H), ("kv_heads", "head_dim")) if use_bias else None
        self.out_bias = zeros((D,), ("embed",)) if use_bias else None

    def keys_values(self, x_BMD: jax.Array, rotation: Rotation | None) -> KeysValues:
        """What others may read of `x`: its own tokens in self-attention, the encoder's in cross attention."""
        k_BMGH = add_bias(project(x_BMD, self.key[...], dtype=self.dtype), self.key_bias)
        v_BMGH = add_bias(project(x_BMD, self.value[...], dtype=self.dtype), self.value_bias)
        return KeysValues(
            self.shard(rotate(k_BMGH, rotation), "batch", "length", "heads_activation", None),
            self.shard(v_BMGH, "batch", "length", "heads_activation", None),
        )

    def __call__(
        self,
        x_BLD: jax.Array,
        seen: KeysValues,
        *,
        mask_BLM: jax.Array,
        bias_BNLM: jax.Array | None = None,
        rotation: Rotation | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        q_BLNH = add_bias(project(x_BLD, self.query[...], dtype=self.dtype), self.query_bias)
        q_BLNH = self.shard(rotate(q_BLNH, rotation), "batch", "length", "heads_activation", None)
        y_BLNH = attend(
            q_BLNH * self.logit_scale,
            seen,
            mask_BLM=mask_BLM,
            bias_BNLM=bias_BNLM,
            dropout_key=dropout_key,
            dropout_rate=self.dropout_rate,
        )
        y_BLNH = self.shard(y_BLNH, "batch", "length", "heads_activation", None)
        return add_bias(project(y_BLNH, self.out[...], dtype=self.dtype, num_contracted=2), self.out_bias)


def attend(
    q_BLNH: jax.Array,
    seen: KeysValues,
    *,
    mask_BLM: jax.Array,
    bias_BNLM: jax.Array | None,
    dropout_key: jax.Array | None,
    dropout_rate: float,
) -> jax.Array:
    """softmax(q k + bias, where the mask allows) v, with logits and softmax in float32. Kernels will stand here."""
    B, L, N, H = q_BLNH.shape
    M, G = seen.keys_BMGH.shape[1:3]
    q_BLGKH = q_BLNH.reshape(B, L, G, N // G, H)  # K queries read one key head
    logits = jnp.einsum("BLGKH,BMGH->BGKLM", q_BLGKH, seen.keys_BMGH, preferred_element_type=jnp.float32)
    logits_BNLM = logits.reshape(B, N, L, M)
    if bias_BNLM is not None:
        logits_BNLM = logits_BNLM + jnp.broadcast_to(bias_BNLM, logits_BNLM.shape)
    weights_BNLM = jax.nn.softmax(jnp.where(mask_BLM[:, None], logits_BNLM, MASKED)).astype(q_BLNH.dtype)
    weights_BNLM = dropout(weights_BNLM, dropout_key, rate=dropout_rate, shared_dim=2)
    weights_BGKLM = weights_BNLM.reshape(B, G, N // G, L, M)
    return jnp.einsum("BGKLM,BMGH->BLGKH", weights_BGKLM, seen.values_BMGH).reshape(B, L, N, H)
