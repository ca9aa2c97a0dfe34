"""Continues prompts with a model's cache.

prompt row (decoder-only)    The cat sat on . . .      left-aligned, segment 0 where it ends
prompt row (enc-dec)         <start>                   and the text to read in `prompt.encoder`
result                       the mat <eos> <pad> <pad>
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t5x_like.decoding.sampling import SampleFn
from t5x_like.decoding.stop_strings import EndsWith, StopFn
from t5x_like.features import Features


class Progress(NamedTuple):
    """What one step of decoding hands to the next."""

    index: jax.Array
    logits_BV: jax.Array
    cache: Any
    tokens_BL: jax.Array
    done_B: jax.Array


def generate(
    model,
    prompt: Features,
    *,
    max_new_tokens: int,
    sample: SampleFn,
    eos_id: int,
    pad_id: int,
    key: jax.Array,
    row_ids: jax.Array | None = None,
    limits: jax.Array | None = None,
    stop: StopFn = EndsWith(),  # noqa: B008  frozen
) -> jax.Array:
    """New tokens [B, max_new_tokens] of each row: up to and with `eos_id`, then `pad_id`. Stops when all rows end.

    `row_ids` [B] name the rows (0 ... B-1 if None): the draws of a row depend on `key` and its name only, so a row
    gets the same tokens in whatever batch it is. `limits` [B] are the most new tokens of each row, where some get fewer
    than `max_new_tokens`; `stop` ends rows by what their new tokens are. Run it inside jit.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; ask for 1 or more")
    B, L = prompt.tokens.shape
    row_ids = jnp.arange(B) if row_ids is None else row_ids
    limits_B = jnp.full(B, max_new_tokens) if limits is None else limits
    keys_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_ids)
    logits_BV, cache = model.prefill(prompt, model.init_cache(B, L + max_new_tokens))

    def pick(progress: Progress) -> Progress:
        step_keys_B = jax.vmap(lambda row_key: jax.random.fold_in(row_key, progress.index))(keys_B)
        picked_B = jnp.where(progress.done_B, pad_id, sample(step_keys_B, progress.logits_BV)).astype(jnp.int32)
        tokens_BL = jax.lax.dynamic_update_slice(progress.tokens_BL, picked_B[:, None], (0, progress.index))
        num_new = progress.index + 1
        ends_B = (picked_B == eos_id) | (num_new >= limits_B) | stop(tokens_BL, num_new)
        return progress._replace(index=num_new, tokens_BL=tokens_BL, done_B=progress.done_B | ends_B)

    def unfinished(progress: Progress) -> jax.Array:
        return (progress.index < max_new_tokens) & ~progress.done_B.all()

    def step(progress: Progress) -> Progress:
        last_B = jax.lax.dynamic_index_in_dim(progress.tokens_BL, progress.index - 1, axis=1, keepdims=False)
        logits_BV, cache = model.decode_step(last_B, progress.cache)
        return pick(progress._replace(logits_BV=logits_BV, cache=cache))

    first = Progress(
        index=jnp.int32(0),
        logits_BV=logits_BV,
        cache=cache,
        tokens_BL=jnp.full((B, max_new_tokens), pad_id, jnp.int32),
        done_B=limits_B < 1,
    )
    return jax.lax.while_loop(unfinished, step, pick(first)).tokens_BL
