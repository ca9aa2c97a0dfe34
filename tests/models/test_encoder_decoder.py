"""BART and mBART; the rest of what an encoder-decoder must do is in the battery of all models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block, PostNorm, PreNorm
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.entry import Entry
from t5x_like.models.heads import BiasedTiedHead
from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import LayerNorm, Mlp
from t5x_like.models.parameters import merge, split
from t5x_like.models.positions import LearnedPositions

attention = functools.partial(Attention, qkv_bias=True, out_bias=True)
layer = functools.partial(
    Block, norm=LayerNorm, attention=attention, cross_attention=attention, mlp=functools.partial(Mlp, use_bias=True)
)
bart = functools.partial(
    EncoderDecoder,
    vocab_size=31,
    num_encoder_layers=1,
    num_decoder_layers=2,
    d_model=16,
    num_heads=2,
    d_ff=24,
    entry=functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=16), norm=LayerNorm),
    bias=None,
    head=BiasedTiedHead,
    init=normal_init,
)
MODELS = {
    "bart": functools.partial(bart, layers=functools.partial(layer, residual=PostNorm), final_norm=None),
    "mbart": functools.partial(bart, layers=functools.partial(layer, residual=PreNorm), final_norm=LayerNorm),
}
every_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def make(name, **options):
    graphdef, params, _ = split(MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0)), **options))
    keys = dict(zip(params, jax.random.split(jax.random.key(1), len(params)), strict=True))
    return graphdef, {path: x + 0.2 * jax.random.normal(keys[path], x.shape) for path, x in params.items()}


def batch(length=6):
    tokens, inputs = jax.random.randint(jax.random.key(2), (2, 2, length), 1, 31)
    place = jnp.tile(jnp.arange(length), (2, 1))
    side = Features(inputs, None, None, jnp.ones_like(inputs), place[..., None], 0 * place)
    return side._replace(tokens=tokens, attn_order=place, encoder=side)


@every_model
def test_decoding_through_the_cache_gives_the_logits_of_the_whole_row(name):
    graphdef, params = make(name)

    @jax.jit
    def both(params, x):
        model = merge(graphdef, params)
        start = jax.tree.map(lambda a: a[:, :2], x._replace(encoder=None))._replace(encoder=x.encoder)
        logits, cache = model.prefill(start, model.init_cache(2, 6))
        found = [logits]
        for place in range(2, 6):
            logits, cache = model.decode_step(x.tokens[:, place], cache)
            found.append(logits)
        return jnp.stack(found, axis=1), model(x)

    found, whole = both(params, batch())
    np.testing.assert_allclose(found, whole[:, 1:], rtol=1e-3, atol=1e-3)


@every_model
def test_each_stack_has_positions_and_a_norm_of_its_own_and_the_bias_shifts_the_logits(name):
    graphdef, params = make(name)
    for stack in ("encoder", "decoder"):
        assert params[f"{stack}/entry/positions/table"].shape == (16, 16)
        assert params[f"{stack}/entry/norm/bias"].shape == (16,)
    logits = jax.jit(lambda params: merge(graphdef, params)(batch()))
    shift = jnp.arange(31.0)
    shifted = logits(params | {"head/bias": params["head/bias"] + shift})
    np.testing.assert_allclose(shifted, logits(params) + shift[None, None], rtol=1e-5, atol=1e-4)


def test_the_output_is_dropped_at_the_rate_of_the_layers_unless_it_has_its_own():
    """A share of the hidden numbers is exactly 0 where the output is dropped."""

    def share_of_zeros(**options):
        graphdef, params = make("mbart", dropout_rate=0.5, **options)
        hidden = jax.jit(lambda params, key: merge(graphdef, params).hidden(batch(), dropout_key=key).x_BLD)
        return float((hidden(params, jax.random.key(0)) == 0).mean())

    assert share_of_zeros() > 0.2
    assert share_of_zeros(final_dropout_rate=0.0) == 0.0
