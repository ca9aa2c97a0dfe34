import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.entry import Entry
from t5x_like.models.heads import TiedHead
from t5x_like.models.initializers import gpt2_init
from t5x_like.models.layers import LayerNorm, Mlp
from t5x_like.models.parameters import split
from t5x_like.models.positions import LearnedPositions


def num_parameters(model, **sizes):
    made = nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0), **sizes))
    return sum(shape.size for shape in split(made).params.values())


def test_nanogpt_s_cpu_recipe_has_804096_parameters():
    nanogpt = functools.partial(
        Decoder,
        entry=functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=64)),
        layers=functools.partial(Block, norm=functools.partial(LayerNorm, use_bias=False), mlp=Mlp),
        final_norm=functools.partial(LayerNorm, use_bias=False),
        head=TiedHead,
        init=gpt2_init,
    )
    assert num_parameters(nanogpt, vocab_size=65, num_layers=4, d_model=128, num_heads=4, d_ff=512) == 804_096


def test_t5_1_1_small_has_the_published_number_of_parameters():
    """76,961,152 in google/t5-v1_1-small, whose vocabulary is 32,128."""
    sizes = {"num_encoder_layers": 8, "num_decoder_layers": 8, "d_model": 512, "num_heads": 6, "head_dim": 64}
    assert num_parameters(EncoderDecoder, vocab_size=32_128, d_ff=1024, **sizes) == 76_961_152


def test_a_cache_that_is_too_short_for_the_prompt_is_refused():
    sizes = {"vocab_size": 10, "num_layers": 1, "d_model": 8, "num_heads": 2, "d_ff": 8}
    model = Decoder(**sizes, rngs=nnx.Rngs(params=jax.random.key(0)))
    ones = jnp.ones((1, 5), jnp.int32)
    prompt = Features(ones, None, None, ones, ones[..., None], ones)
    with pytest.raises(ValueError, match="prompt of 5 places in a cache of 4"):
        model.prefill(prompt, model.init_cache(1, 4))
