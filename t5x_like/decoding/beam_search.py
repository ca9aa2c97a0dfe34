"""Beam search with T5X's length penalty: deterministic, batched, through a model's cache.

Each row keeps K unended continuations and the K best ended ones. A step looks at the 2K best one-token continuations of
the unended; those that end leave with score = log p / penalty(number of tokens, EOS included), the others go on. A row
is settled when no unended continuation can still beat the worst of its K ended ones.

Two choices differ from T5X: only one of the K best may end (as in Hugging Face), so that one beam without a penalty is
greedy search; and unended continuations that are given for want of ended ones are divided by their penalty too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t5x_like.features import Features
from t5x_like.models.kv_cache import Cache


class Beams(NamedTuple):
    """The ended continuations of each row, best first, then, where fewer than K ended, the best unended ones.

    tokens_BKL   int32: up to and with EOS, then padding
    scores_BK    float32: log p in nats over the penalty; -inf where a row has no such continuation
    """

    tokens_BKL: jax.Array
    scores_BK: jax.Array


class Search(NamedTuple):
    """What one step hands to the next."""

    index: jax.Array
    cache: Cache  # of B * K rows, for the unended
    live_BKL: jax.Array
    log_p_BK: jax.Array
    parent_BK: jax.Array  # which beam each unended one continues
    ended: Beams


def length_penalty(num_tokens: int | jax.Array, alpha: float) -> jax.Array:
    """((5 + n) / 6) ** alpha (arXiv:1609.08144, section 7): 1 if alpha is 0."""
    return ((5.0 + num_tokens) / 6.0) ** alpha


def beam_search(
    model,
    prompt: Features,
    *,
    max_new_tokens: int,
    num_beams: int,
    eos_id: int,
    pad_id: int,
    alpha: float = 0.6,
) -> Beams:
    """The `num_beams` best continuations of each row of `prompt`. Run it inside jit.

    A larger `alpha` favours longer texts; with 0 the score is log p. A row's result does not depend on its batch.
    """
    for name, value, least in (("max_new_tokens", max_new_tokens, 1), ("num_beams", num_beams, 1), ("alpha", alpha, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; use {least} or more")
    B, L = prompt.tokens.shape
    K = num_beams
    logits_BV, cache = model.prefill(prompt, model.init_cache(B, L + max_new_tokens))

    def unsettled(search: Search) -> jax.Array:
        best_B = search.log_p_BK[:, 0] / length_penalty(max_new_tokens, alpha)
        return (search.index < max_new_tokens) & jnp.any(search.ended.scores_BK[:, -1] < best_B)

    def step(search: Search) -> Search:
        rows_BK = jnp.arange(B)[:, None] * K + search.parent_BK
        last_BK = jax.lax.dynamic_index_in_dim(search.live_BKL, search.index - 1, axis=2, keepdims=False)
        logits, cache = model.decode_step(last_BK.reshape(-1), take_rows(search.cache, rows_BK.reshape(-1)))
        return advance(search._replace(cache=cache), logits.reshape(B, K, -1), eos_id=eos_id, alpha=alpha)

    empty_BKL = jnp.full((B, K, max_new_tokens), pad_id, jnp.int32)
    never_BK = jnp.full((B, K), -jnp.inf)
    start = Search(
        index=jnp.int32(0),
        cache=take_rows(cache, jnp.repeat(jnp.arange(B), K)),
        live_BKL=empty_BKL,
        log_p_BK=never_BK.at[:, 0].set(0.0),  # K equal beams would stay equal
        parent_BK=jnp.zeros((B, K), jnp.int32),
        ended=Beams(empty_BKL, never_BK),
    )
    logits_BKV = jnp.repeat(logits_BV[:, None], K, axis=1)
    search = advance(start, logits_BKV, eos_id=eos_id, alpha=alpha)
    search = jax.lax.while_loop(unsettled, step, search)
    return ended_first(search, length_penalty(max_new_tokens, alpha))


def advance(search: Search, logits_BKV: jax.Array, *, eos_id: int, alpha: float) -> Search:
    """One more token for every unended continuation."""
    B, K, V = logits_BKV.shape
    log_p_BKV = search.log_p_BK[..., None] + jax.nn.log_softmax(logits_BKV.astype(jnp.float32))
    log_p_BC, place_BC = jax.lax.top_k(log_p_BKV.reshape(B, -1), min(2 * K, K * V))
    parent_BC, token_BC = place_BC // V, (place_BC % V).astype(jnp.int32)
    texts_BCL = jnp.take_along_axis(search.live_BKL, parent_BC[..., None], axis=1)
    texts_BCL = jax.lax.dynamic_update_slice(texts_BCL, token_BC[..., None], (0, 0, search.index))
    ends_BC = token_BC == eos_id

    among_best_C = jnp.arange(log_p_BC.shape[1]) < K
    scores_BC = log_p_BC / length_penalty(search.index + 1, alpha)
    scores_BC = jnp.where(ends_BC & among_best_C[None], scores_BC, -jnp.inf)
    scores_BK, best_BK = jax.lax.top_k(jnp.concatenate([search.ended.scores_BK, scores_BC], axis=1), K)
    all_texts = jnp.concatenate([search.ended.tokens_BKL, texts_BCL], axis=1)
    ended = Beams(jnp.take_along_axis(all_texts, best_BK[..., None], axis=1), scores_BK)

    log_p_BK, best_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, log_p_BC), K)
    return Search(
        index=search.index + 1,
        cache=search.cache,
        live_BKL=jnp.take_along_axis(texts_BCL, best_BK[..., None], axis=1),
        log_p_BK=log_p_BK,
        parent_BK=jnp.take_along_axis(parent_BC, best_BK, axis=1),
        ended=ended,
    )


def ended_first(search: Search, penalty: jax.Array) -> Beams:
    ended = search.ended
    K = ended.scores_BK.shape[1]
    is_missing_BK = jnp.where(jnp.isfinite(ended.scores_BK), 0, 2)
    order_BK = jnp.argsort(jnp.concatenate([is_missing_BK, jnp.ones_like(is_missing_BK)], axis=1), stable=True)[:, :K]
    texts = jnp.concatenate([ended.tokens_BKL, search.live_BKL], axis=1)
    scores = jnp.concatenate([ended.scores_BK, search.log_p_BK / penalty], axis=1)
    return Beams(jnp.take_along_axis(texts, order_BK[..., None], axis=1), jnp.take_along_axis(scores, order_BK, axis=1))


def take_rows(cache: Cache, rows: jax.Array) -> Cache:
    """The cache of these rows; a row may be taken more than once.

    Keys and values are [B, M, G, H] in unrolled layers, with a leading dimension in scanned ones.
    """

    def take(rest: Any, dims_of_one_layer: int) -> Any:
        return jax.tree.map(lambda x: jnp.take(x, rows, axis=x.ndim - dims_of_one_layer), rest)

    return Cache(
        layers=take(cache.layers, 4),
        segments_BM=take(cache.segments_BM, 2),
        order_BM=take(cache.order_BM, 2),
        lengths_B=take(cache.lengths_B, 1),
        positions_BP=take(cache.positions_BP, 2),
        encoder_segments_BM=take(cache.encoder_segments_BM, 2),
    )
