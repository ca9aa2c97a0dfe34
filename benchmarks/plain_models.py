"""The models of step_time.py written as plainly as possible: one function each, of our own flat dict of parameters.

No parts, no arguments, no layer loop to choose, no mesh. Tokens are flattened before every projection, as ours are.
"""

import jax
import jax.numpy as jnp
import numpy as np

EPSILON_GPT, EPSILON_T5 = 1e-5, 1e-6


def gpt_loss(params, batch, *, num_layers: int):
    """Mean cross-entropy of nanoGPT without biases or dropout: one causal row of text, nothing packed."""
    B, L = batch.tokens.shape
    table = params["embedding/table"]
    x = table[batch.tokens] + params["stack/entry/positions/table"][None, :L]
    causal = np.tril(np.ones((L, L), bool))[None, None]
    for i in range(num_layers):
        p = {name: params[f"stack/layers/{i}/{name}"] for name in GPT_LAYER}
        y = layer_norm(x, p["attention_norm/before/scale"])
        q, k, v = (flat_matmul(y, p[f"attention/{name}"]) for name in ("query", "key", "value"))
        weights = softmax_of(q / q.shape[-1] ** 0.5, k, causal)
        x = x + flat_matmul(jnp.einsum("bnlm,bmnh->blnh", weights, v), p["attention/out"], dims=2)
        y = flat_matmul(layer_norm(x, p["mlp_norm/before/scale"]), p["mlp/up"])
        x = x + flat_matmul(y * (0.5 + 0.5 * jax.lax.erf(y * 0.5**0.5)), p["mlp/down"])
    x = layer_norm(x, params["stack/final_norm/scale"])
    logits = x.reshape(B * L, -1) @ table.T
    return cross_entropy(logits, batch.targets.ravel(), batch.loss_weights.ravel())


def t5_loss(params, batch, *, num_layers: int):
    """Mean cross-entropy of T5 1.1 on packed rows."""
    encoder, table = batch.encoder, params["embedding/table"]
    own = encoder.segment_ids[:, None, :, None] == encoder.segment_ids[:, None, None, :]
    encoded = table[encoder.tokens]
    bias = relative_bias(params["encoder/bias/table"], encoded.shape[1], bidirectional=True)
    for i in range(num_layers):
        p = {name: params[f"encoder/layers/{i}/{name}"] for name in T5_LAYER}
        y = rms_norm(encoded, p["attention_norm/before/scale"])
        encoded = encoded + t5_attention(p, "attention", y, y, own, bias)
        encoded = encoded + gated_mlp(p, rms_norm(encoded, p["mlp_norm/before/scale"]))
    encoded = rms_norm(encoded, params["encoder/final_norm/scale"])

    x = table[batch.tokens]
    L = x.shape[1]
    causal = np.tril(np.ones((L, L), bool))[None, None]
    own = causal & (batch.segment_ids[:, None, :, None] == batch.segment_ids[:, None, None, :])
    cross = batch.segment_ids[:, None, :, None] == encoder.segment_ids[:, None, None, :]
    bias = relative_bias(params["decoder/bias/table"], L, bidirectional=False)
    for i in range(num_layers):
        p = {name: params[f"decoder/layers/{i}/{name}"] for name in (*T5_LAYER, *T5_CROSS)}
        y = rms_norm(x, p["attention_norm/before/scale"])
        x = x + t5_attention(p, "attention", y, y, own, bias)
        y = rms_norm(x, p["cross_attention_norm/before/scale"])
        x = x + t5_attention(p, "cross_attention", y, encoded, cross, None)
        x = x + gated_mlp(p, rms_norm(x, p["mlp_norm/before/scale"]))
    x = rms_norm(x, params["decoder/final_norm/scale"])
    logits = x.reshape(-1, x.shape[-1]) @ params["head/kernel"]
    return cross_entropy(logits, batch.targets.ravel(), batch.loss_weights.ravel())


ATTENTION = ("query", "key", "value", "out")
SELF_ATTENTION = ("attention_norm/before/scale", "mlp_norm/before/scale", *(f"attention/{name}" for name in ATTENTION))
GPT_LAYER = (*SELF_ATTENTION, "mlp/up", "mlp/down")
T5_LAYER = (*GPT_LAYER, "mlp/gate")
T5_CROSS = ("cross_attention_norm/before/scale", *(f"cross_attention/{name}" for name in ATTENTION))


def t5_attention(p, name, x, source, mask, bias):
    q = flat_matmul(x, p[f"{name}/query"])
    k, v = flat_matmul(source, p[f"{name}/key"]), flat_matmul(source, p[f"{name}/value"])
    return flat_matmul(jnp.einsum("bnlm,bmnh->blnh", softmax_of(q, k, mask, bias), v), p[f"{name}/out"], dims=2)


def softmax_of(q, k, mask, bias=None):
    scores = jnp.einsum("blnh,bmnh->bnlm", q, k)
    if bias is not None:
        scores = scores + jnp.broadcast_to(bias, scores.shape)
    return jax.nn.softmax(jnp.where(mask, scores, -1e30))


def gated_mlp(p, x):
    return flat_matmul(jax.nn.gelu(flat_matmul(x, p["mlp/gate"])) * flat_matmul(x, p["mlp/up"]), p["mlp/down"])


def flat_matmul(x, kernel, dims=1):
    width = int(np.prod(kernel.shape[:dims]))
    return (x.reshape(-1, width) @ kernel.reshape(width, -1)).reshape(*x.shape[:2], *kernel.shape[dims:])


def layer_norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + EPSILON_GPT) * scale[None, None]


def rms_norm(x, scale):
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + EPSILON_T5) * scale[None, None]


def relative_bias(table, length, *, bidirectional, num_buckets=32, max_distance=128):
    """T5's learned bias of each head for the distance between query and key, [1, N, L, L]."""
    distance = np.arange(length)[:, None] - np.arange(length)[None]  # how far back the key stands
    first = np.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        first = (distance < 0) * num_buckets
        distance = np.abs(distance)
    distance = np.maximum(distance, 0)
    exact = num_buckets // 2
    far = exact + (np.log(np.maximum(distance, 1) / exact) / np.log(max_distance / exact) * (num_buckets - exact))
    buckets = first + np.where(distance < exact, distance, np.minimum(far.astype(int), num_buckets - 1))
    return table[:, buckets][None]


def cross_entropy(logits, targets, weights):
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0] * weights).sum() / weights.sum()
