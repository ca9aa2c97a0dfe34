"""Attention with grouped heads: keys and values are made once, read by queries through a kernel."""

from collections.abc import Callable

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from t5x_like.models import attention_kernels
from t5x_like.models.attention_kernels import Scores, Visible
from t5x_like.models.initializers import Initializers
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.layers import Matmul, Shard, Sizes, add_bias, parameter, plain, project, unsharded, zeros
from t5x_like.models.rotary import rotate


class Attention(nnx.Module):
    """Multi-head (G = N), grouped-query (G < N, arXiv:2305.13245) and multi-query (G = 1) attention.

    logit_scale   multiplies q k; None is H ** -0.5. T5 has 1: the initial values of its query take the scale over
    qkv_bias      query, key and value have one (Qwen2); out_bias: so has the output (both: GPT-2, BERT)
    qk_norm       norm of every query and key over its H dims, before it is turned (Qwen3, Gemma 3)
    rotary        turns queries and keys of self-attention by their positions (LLaMA)
    bias          a part of its own that adds to the logits of self-attention by distance (umT5)
    softcap, window, num_global   as in `Scores`
    has_sinks     a learned sink per head, as in `Scores`
    kernel        what computes the softmax
    matmul        what multiplies with the four kernels
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        bidirectional: bool = False,
        logit_scale: float | None = None,
        qkv_bias: bool = False,
        out_bias: bool = False,
        qk_norm: Callable | None = None,
        rotary: Callable | None = None,
        bias: Callable | None = None,
        softcap: float | None = None,
        window: int | None = None,
        num_global: int = 0,
        has_sinks: bool = False,
        kernel: Callable = attention_kernels.xla,
        dropout_rate: float = 0.0,
        matmul: Matmul = plain,
        shard: Shard = unsharded,
    ):
        D, N, G, H = sizes.d_model, sizes.num_heads, sizes.num_kv_heads, sizes.head_dim
        self.dtype, self.dropout_rate, self.shard, self.kernel = sizes.dtype, dropout_rate, shard, kernel
        self.matmul = matmul
        self.logit_scale = H**-0.5 if logit_scale is None else logit_scale
        self.scores = Scores(softcap=softcap, window=window, num_global=num_global)
        self.query = parameter(rngs, init.query, (D, N, H), ("embed", "heads", "head_dim"), fan_in=D)
        self.key = parameter(rngs, init.key_value, (D, G, H), ("embed", "kv_heads", "head_dim"), fan_in=D)
        self.value = parameter(rngs, init.key_value, (D, G, H), ("embed", "kv_heads", "head_dim"), fan_in=D)
        self.out = parameter(rngs, init.attention_out, (N, H, D), ("heads", "head_dim", "embed"), fan_in=N * H)
        self.query_bias = zeros((N, H), ("heads", "head_dim")) if qkv_bias else None
        self.key_bias = zeros((G, H), ("kv_heads", "head_dim")) if qkv_bias else None
        self.value_bias = zeros((G, H), ("kv_heads", "head_dim")) if qkv_bias else None
        self.out_bias = zeros((D,), ("embed",)) if out_bias else None
        self.query_norm = qk_norm and qk_norm(H, axis="head_dim")
        self.key_norm = qk_norm and qk_norm(H, axis="head_dim")
        self.rotary = rotary and rotary(H)
        self.bias = bias and bias(sizes, bidirectional=bidirectional, rngs=rngs)
        self.sinks = zeros((N,), ("heads",)) if has_sinks else None

    def keys_values(self, x_BMD: jax.Array, positions_BMP: jax.Array | None) -> KeysValues:
        """What others may read of `x`: its own tokens in self-attention; the encoder's, without positions, in cross."""
        k_BMGH = add_bias(project(x_BMD, self.key[...], dtype=self.dtype, matmul=self.matmul), self.key_bias)
        v_BMGH = add_bias(project(x_BMD, self.value[...], dtype=self.dtype, matmul=self.matmul), self.value_bias)
        k_BMGH = self.turn(k_BMGH, self.key_norm, positions_BMP)
        return KeysValues(
            checkpoint_name(self.shard(k_BMGH, "batch", "key_length", "heads_activation", None), "key"),
            checkpoint_name(self.shard(v_BMGH, "batch", "key_length", "heads_activation", None), "value"),
        )

    def __call__(
        self,
        x_BLD: jax.Array,
        seen: KeysValues,
        visible: Visible,
        *,
        positions_BLP: jax.Array | None = None,
        bias_BNLM: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """What the tokens of `x` read of `seen`; cross attention has neither positions nor bias."""
        q_BLNH = add_bias(project(x_BLD, self.query[...], dtype=self.dtype, matmul=self.matmul), self.query_bias)
        q_BLNH = self.turn(q_BLNH, self.query_norm, positions_BLP)
        q_BLNH = checkpoint_name(self.shard(q_BLNH, "batch", "inner_length", "heads_activation", None), "query")
        y_BLNH = self.kernel(
            q_BLNH * self.logit_scale,
            seen,
            visible,
            self.scores._replace(bias_BNLM=bias_BNLM, sinks_N=None if self.sinks is None else self.sinks[...]),
            dropout_key=dropout_key,
            dropout_rate=self.dropout_rate,
        )
        y_BLNH = checkpoint_name(self.shard(y_BLNH, "batch", "inner_length", "heads_activation", None), "attention")
        out_BLD = checkpoint_name(
            project(y_BLNH, self.out[...], dtype=self.dtype, num_contracted=2, matmul=self.matmul), "attention_out"
        )
        return add_bias(out_BLD, self.out_bias)

    def turn(self, x_BLNH: jax.Array, norm: nnx.Module | None, positions_BLP: jax.Array | None) -> jax.Array:
        x_BLNH = x_BLNH if norm is None else norm(x_BLNH)
        if self.rotary is None or positions_BLP is None:
            return x_BLNH
        return rotate(x_BLNH, self.rotary(positions_BLP))
