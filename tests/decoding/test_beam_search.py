import functools
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from t5x_like.decoding.beam_search import beam_search, length_penalty
from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import greedy
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from tests.decoding.test_generate import PROMPTS, SIZES, rows, wide_init

EOS, PAD = 1, 0
MODELS = {
    "decoder": functools.partial(Decoder, **SIZES, num_layers=2, layer_loop="unrolled"),
    "scanned": functools.partial(Decoder, **SIZES, num_layers=2, layer_loop="scanned"),
    "encoder-decoder": functools.partial(EncoderDecoder, **SIZES, num_encoder_layers=1, num_decoder_layers=1),
    "four tokens": functools.partial(Decoder, **(SIZES | {"vocab_size": 4}), num_layers=1),
}


@functools.cache
def make(name):
    with jax.ensure_compile_time_eval():  # it may be asked for first inside a jit
        return MODELS[name](init=wide_init, rngs=nnx.Rngs(params=jax.random.key(0)))


@functools.cache
def compiled(name, num_beams, alpha, new, eos_id):
    model = make(name)

    def call(prompt):
        ends = {"eos_id": eos_id, "pad_id": PAD}
        return beam_search(model, prompt, max_new_tokens=new, num_beams=num_beams, alpha=alpha, **ends)

    return jax.jit(call)


def search(name, prompt, num_beams=3, alpha=0.6, new=5, eos_id=EOS):
    return jax.tree.map(np.asarray, compiled(name, num_beams, alpha, new, eos_id)(prompt))


def prompts_for(name, texts):
    if name != "encoder-decoder":
        return rows(texts)
    return rows([[0]] * len(texts))._replace(encoder=rows(texts, causal=False))


def test_the_penalty_is_the_published_one():
    assert float(length_penalty(7, 0.6)) == pytest.approx(2**0.6)
    assert float(length_penalty(100, 0.0)) == 1.0


@pytest.mark.parametrize("eos_id", [EOS, 14, -1])
def test_one_beam_without_a_penalty_is_greedy_search(eos_id):
    prompt = rows(PROMPTS)
    ends = {"eos_id": eos_id, "pad_id": PAD}
    model, key = make("decoder"), jax.random.key(0)
    expected = jax.jit(lambda x: generate(model, x, max_new_tokens=5, sample=greedy, key=key, **ends))(prompt)
    found = search("decoder", prompt, num_beams=1, alpha=0.0, eos_id=eos_id)
    np.testing.assert_array_equal(found.tokens_BKL[:, 0], expected)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_for_every_text_finds_what_exhaustive_search_finds(alpha):
    """All 13 texts of up to 3 of 4 tokens that end with EOS, in the order of their scores."""
    model, given = make("four tokens"), [2, 3]
    texts = [[*body, EOS] for n in range(3) for body in itertools.product([0, 2, 3], repeat=n)]
    whole = rows([[*given, *text] for text in texts], width=5)
    log_p = np.asarray(jax.nn.log_softmax(jax.jit(lambda x: model(x))(whole)))
    scored = []
    for number, text in enumerate(texts):
        total = sum(log_p[number, len(given) - 1 + place, token] for place, token in enumerate(text))
        scored.append((total / float(length_penalty(len(text), alpha)), text + [PAD] * (3 - len(text))))
    scored.sort(key=lambda pair: -pair[0])
    found = search("four tokens", rows([given]), num_beams=64, alpha=alpha, new=3)
    np.testing.assert_allclose(found.scores_BK[0, :13], [score for score, _ in scored], rtol=1e-4)
    assert found.tokens_BKL[0, :13].tolist() == [text for _, text in scored]


@pytest.mark.parametrize("name", ["decoder", "scanned", "encoder-decoder"])
def test_a_row_is_searched_the_same_alone_as_in_a_batch(name):
    together = search(name, prompts_for(name, PROMPTS))
    for i, text in enumerate(PROMPTS):
        alone = search(name, prompts_for(name, [text]))
        np.testing.assert_array_equal(alone.tokens_BKL[0], together.tokens_BKL[i])
        np.testing.assert_allclose(alone.scores_BK[0], together.scores_BK[i], rtol=1e-4)


@pytest.mark.parametrize("name", ["decoder", "scanned"])
def test_scores_are_the_log_probabilities_of_the_whole_texts(name):
    """Each beam reads the keys and values of its own past: what the cache gives, the whole row gives."""
    found = search(name, rows([PROMPTS[0]]), num_beams=4, alpha=0.0, eos_id=-1)
    texts = [PROMPTS[0] + beam for beam in found.tokens_BKL[0].tolist()]
    model = make("decoder")
    log_p = np.asarray(jax.nn.log_softmax(jax.jit(lambda x: model(x))(rows(texts))))
    totals = [sum(log_p[k, place - 1, text[place]] for place in range(3, 8)) for k, text in enumerate(texts)]
    np.testing.assert_allclose(found.scores_BK[0], totals, rtol=1e-4)
    assert len({tuple(text) for text in texts}) == 4
    assert np.all(np.diff(found.scores_BK[0]) <= 0)


def test_ended_texts_come_before_unended_ones_and_are_padded_after_their_end():
    likely = int(search("decoder", rows(PROMPTS), num_beams=1, alpha=0.0, eos_id=-1).tokens_BKL[0, 0, 1])
    found = search("decoder", rows(PROMPTS), num_beams=6, new=4, eos_id=likely)
    for texts in found.tokens_BKL.tolist():
        has_ended = [likely in text for text in texts]
        assert has_ended == sorted(has_ended, reverse=True)
        for text in texts:
            if likely in text:
                assert set(text[text.index(likely) + 1 :]) <= {PAD}
    assert found.tokens_BKL.shape == (4, 6, 4)


@pytest.mark.parametrize(
    "wrong", [{"new": 0}, {"num_beams": 0}, {"alpha": -0.1}], ids=["max_new_tokens", "num_beams", "alpha"]
)
def test_searching_for_nothing_is_refused(wrong, request):
    with pytest.raises(ValueError, match=f"{request.node.callspec.id} is {next(iter(wrong.values()))}"):
        search("decoder", rows(PROMPTS), **wrong)
