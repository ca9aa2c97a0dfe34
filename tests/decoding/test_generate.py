import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import Sample, greedy
from t5x_like.features import Features
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.initializers import normal_init

V, EOS, PAD, NEW = 23, 1, 0, 6
SIZES = {"vocab_size": V, "d_model": 16, "num_heads": 2, "d_ff": 32}
wide_init = functools.partial(normal_init, stddev=0.4)  # so that choices are sharp and differ between rows


@functools.cache
def decoder():
    return Decoder(**SIZES, num_layers=2, init=wide_init, rngs=nnx.Rngs(params=jax.random.key(0)))


@functools.cache
def encoder_decoder():
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    return EncoderDecoder(**SIZES, **layers, init=wide_init, rngs=nnx.Rngs(params=jax.random.key(0)))


def rows(texts, causal=True, width=9):
    """Ragged lists of ids as left-aligned prompts."""
    tokens = np.array([text + [PAD] * (width - len(text)) for text in texts], np.int32)
    place = np.tile(np.arange(width, dtype=np.int32), (len(texts), 1))
    real = (place < np.array([[len(text)] for text in texts])).astype(np.int32)
    return Features(tokens, None, None, real, place[..., None], place if causal else place * 0)


PROMPTS = [[5, 9, 4], [7], [3, 8, 2, 6, 11], [12, 13]]


@functools.cache
def compiled(make, sample, new):
    model = make()  # outside of the trace, which would leave tracers in the cache

    def call(prompt, key, eos_id, options):
        return generate(model, prompt, max_new_tokens=new, sample=sample, eos_id=eos_id, pad_id=PAD, key=key, **options)

    return jax.jit(call)


def run(make, prompt, sample=greedy, eos_id=EOS, new=NEW, **options):
    return np.asarray(compiled(make, sample, new)(prompt, jax.random.key(7), eos_id, options))


@functools.cache
def whole_rows():
    model = decoder()
    return jax.jit(lambda features: model(features))


def by_whole_rows(text, steps):
    """Greedy continuation without a cache: the whole row again for each token."""
    text, logits = list(text), whole_rows()
    for _ in range(steps):
        text.append(int(jnp.argmax(logits(rows([text]))[0, len(text) - 1])))
    return text[-steps:]


def test_greedy_continuations_of_ragged_prompts_are_those_of_whole_rows():
    found = run(decoder, rows(PROMPTS), eos_id=-1, new=4)
    assert found.tolist() == [by_whole_rows(text, 4) for text in PROMPTS]


@pytest.mark.parametrize(
    "sample",
    [greedy, Sample(), Sample(temperature=0.7, top_k=9, top_p=0.9)],
    ids=["greedy", "temperature 1", "all cuts"],
)
def test_a_row_continues_the_same_alone_as_in_a_batch(sample):
    together = run(decoder, rows(PROMPTS), sample, row_ids=jnp.arange(4))
    for i, text in enumerate(PROMPTS):
        alone = run(decoder, rows([text]), sample, row_ids=jnp.array([i]))
        np.testing.assert_array_equal(alone[0], together[i])


def test_rows_of_equal_prompts_draw_differently_and_another_key_draws_anew():
    found = run(decoder, rows([[5, 9]] * 4), Sample(), eos_id=-1)
    assert len({tuple(row) for row in found.tolist()}) == 4


def test_after_the_end_of_a_row_there_is_only_padding():
    free = run(decoder, rows(PROMPTS), eos_id=-1)
    end = int(free[0, 2])
    found = run(decoder, rows(PROMPTS), eos_id=end)
    for ended, unended in zip(found.tolist(), free.tolist(), strict=True):
        cut = unended.index(end) + 1 if end in unended else NEW
        assert ended == unended[:cut] + [PAD] * (NEW - cut)
    assert end in found[0, :3]


def test_an_encoder_decoder_continues_each_start_by_what_its_encoder_reads():
    starts = [[0], [0, 4], [0], [0]]
    encoder = rows(PROMPTS, causal=False)
    together = run(encoder_decoder, rows(starts)._replace(encoder=encoder), eos_id=-1)
    for i, text in enumerate(PROMPTS):
        alone = rows([starts[i]])._replace(encoder=rows([text], causal=False))
        np.testing.assert_array_equal(run(encoder_decoder, alone, eos_id=-1)[0], together[i])
    assert together[0].tolist() != together[2].tolist()


def test_asking_for_no_tokens_is_refused():
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        run(decoder, rows(PROMPTS), new=0)
