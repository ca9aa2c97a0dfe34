"""Texts through untrained models: order, batches and counts. Values by hand are in tests/commands/test_commands.py."""

import functools

import pytest
from flax import nnx

from t5x_like.decoding import prompts
from t5x_like.decoding.sampling import Sample
from t5x_like.decoding.texts import TextModel, batches, fill
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.entry import Entry
from t5x_like.models.parameters import split
from t5x_like.models.positions import LearnedPositions
from t5x_like.vocabularies import load

SIZES = {"vocab_size": 384, "d_model": 16, "num_heads": 2, "d_ff": 32}
MODELS = {
    "InEncoder": functools.partial(EncoderDecoder, num_encoder_layers=1, num_decoder_layers=1, **SIZES),
    "InPrefix": functools.partial(Decoder, num_layers=1, **SIZES),
    "InText": functools.partial(Decoder, num_layers=1, **SIZES),
}


def text_model(name: str, model=None, batch_size: int = 2) -> TextModel:
    vocabulary = load.open_vocabulary(load.describe("byte", None, extra_ids=10), None)
    graphdef, params, _ = split((model or MODELS[name])(rngs=nnx.Rngs(params=0)))
    arrangement = getattr(prompts, name)(vocabulary.special)
    return TextModel(graphdef, params, vocabulary, arrangement, batch_size)


@pytest.mark.parametrize("name", MODELS)
def test_scores_come_in_order_whatever_the_batch(name):
    pairs = [("a b", "cd"), ("", ""), ("longer text", "é")]
    one, two = (list(text_model(name, batch_size=size).score(pairs)) for size in (1, 2))
    assert [tokens for _, tokens in one] == [3, 1, 3]  # bytes, and EOS
    for (a, _), (b, _) in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5) and a < 0


@pytest.mark.parametrize("name", ["InEncoder", "InText"])
def test_drawn_texts_depend_on_the_seed_and_the_number_of_the_text_alone(name):
    inputs = ["one", "the second", "one"]
    settings = {"max_new_tokens": 5, "sample": Sample(temperature=1.0)}
    one, two = (list(text_model(name, batch_size=size).generate(inputs, seed=3, **settings)) for size in (1, 2))
    assert one == two and len(one) == 3 and one[0] != one[2]
    assert one != list(text_model(name).generate(inputs, seed=4, **settings))


def test_rows_beyond_the_learned_positions_are_refused():
    entry = functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=8))
    model = text_model("InText", functools.partial(MODELS["InText"], entry=entry))
    assert len(list(model.score([("abc", "defg")]))) == 1  # start and 7 bytes: 8 places
    with pytest.raises(ValueError, match="no position for token 9"):
        list(model.score([("abcd", "defg")]))
    with pytest.raises(ValueError, match="no position for token 9"):
        list(model.generate(["abc"], max_new_tokens=6, sample=Sample(temperature=0.0), seed=0))
    assert len(list(model.generate(["abc"], max_new_tokens=5, sample=Sample(temperature=0.0), seed=0))) == 1


def test_batches_have_one_size_and_nothing_is_lost():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert fill([4], 2, "") == [4, ""]
