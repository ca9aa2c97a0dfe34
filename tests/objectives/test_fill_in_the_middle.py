"""Fill in the middle: the text comes back exactly, at the rates that were asked for."""

import json
import pathlib

import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.objectives.causal_lm import CausalLM
from t5x_like.objectives.fill_in_the_middle import FillInTheMiddle, rearrange
from t5x_like.vocabularies import load
from t5x_like.vocabularies.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(
    pad=0, eos=1, unk=2, markers={"fim_prefix": 259, "fim_suffix": 260, "fim_middle": 261, "other": 262}
)
VOCABULARY = load.ByteVocabulary(extra_ids=4, special=SPECIAL)
CONTEXT = Context({"targets": 64}, SPECIAL, VOCABULARY.size, VOCABULARY)
PRE, SUF, MID = 259, 260, 261


def examples_of(objective, texts, seed=0, context=CONTEXT):
    objective.check(context)
    documents = ragged.from_list([context.vocabulary.encode(text) for text in texts])
    ends = np.ones(len(texts), bool)
    made = objective.examples(np.random.default_rng(seed), Documents({"targets": documents}, ends), context)
    return [tokens.tolist() for tokens in ragged.to_list(made.targets)]


def put_back(tokens):
    """The tokens of a piece in the order of its text, whichever of the two forms it has."""
    if tokens[:1] != [PRE]:
        return tokens
    ends, tokens = tokens[-1:] == [1], [token for token in tokens if token != 1]
    before, rest = tokens[1 : tokens.index(SUF)], tokens[tokens.index(SUF) + 1 :]
    suffix, behind = rest[: rest.index(MID)], rest[rest.index(MID) + 1 :]
    return before + behind + suffix + [1] * ends


def texts(count=2000, seed=0):
    rng = np.random.default_rng(seed)
    letters = np.array(list("ab cdé日本🎉\n\t("))
    return ["".join(rng.choice(letters, rng.integers(0, 25))) for _ in range(count)]


def test_the_text_comes_back_exactly_characters_of_many_bytes_included():
    written = texts()
    pieces = [put_back(tokens) for tokens in examples_of(FillInTheMiddle(rate=1.0), written)]
    assert "".join(VOCABULARY.decode(piece) for piece in pieces) == "".join(written)
    assert sum(piece[-1] == 1 for piece in pieces) == len(written)


def test_texts_are_cut_between_characters_at_the_rates_asked_for():
    """Both shares within 4 standard errors of 5,000 texts: a deviation of 0.04 would be caught."""
    made = examples_of(FillInTheMiddle(rate=0.5, spm_share=0.25), ["ab日本cd"] * 5000)
    moved = [tokens for tokens in made if tokens[0] == PRE]
    spm = [tokens for tokens in moved if tokens[1] == SUF and tokens[-2] != MID]
    assert abs(len(moved) / 5000 - 0.5) < 4 * np.sqrt(0.25 / 5000)
    # A PSM text with an empty prefix begins like an SPM one: 13 of 49 pairs of cuts have theirs at the front.
    low_is_zero = 1 - (6 / 7) ** 2
    expected = 0.25 + 0.75 * low_is_zero
    assert abs(len(spm) / len(moved) - expected) < 0.04
    for tokens in moved:
        part = [token for token in tokens if token not in (PRE, SUF, MID, 1)]
        assert len(VOCABULARY.decode(part)) == 6  # no character was cut: each part is whole UTF-8


def test_rate_0_is_a_causal_language_model():
    written = texts(50)
    assert examples_of(FillInTheMiddle(rate=0.0), written) == examples_of(
        CausalLM(), written, context=CONTEXT._replace(lengths={"targets": 54})
    )


def test_a_piece_that_is_not_the_tokens_of_its_text_stays_as_it_is():
    made = examples_of(FillInTheMiddle(rate=1.0), ["日" * 40])  # 120 bytes: cut at 54, which is inside no character
    again = examples_of(FillInTheMiddle(rate=1.0), ["a" + "日" * 40])  # cut inside one
    assert [tokens[0] for tokens in made] == [PRE] * 3
    assert again[0][0] != PRE and again[1][0] != PRE
    assert sum(len(put_back(tokens)) for tokens in again) == 122


def test_no_piece_is_longer_than_its_row():
    made = examples_of(FillInTheMiddle(rate=1.0), ["".join(texts(40))])
    assert max(map(len, made)) <= 64


def test_a_vocabulary_without_the_markers_is_refused():
    with pytest.raises(ValueError, match="no marker 'fim_prefix'"):
        FillInTheMiddle().check(CONTEXT._replace(special=SpecialTokens(pad=0, eos=1)))


class Characters:
    """A vocabulary of one id a character."""

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    encode_inside, decode_inside = encode, decode


def test_parts_stand_in_the_order_of_the_released_code():
    golden = json.loads(pathlib.Path("tests/golden/fill_in_the_middle.json").read_text())
    special = SpecialTokens(pad=0, eos=4, markers={"fim_prefix": 1, "fim_suffix": 2, "fim_middle": 3})
    context = Context({"targets": 64}, special, 1000, Characters())
    text, kinds = np.array(golden["text"], np.int32), []
    for tokens in golden["made"]:
        suffix, middle = tokens.index(2), tokens.index(3)
        kinds.append(suffix == 1)  # none of these texts has an empty prefix
        high = len(text) - (middle - suffix - 1)
        low = suffix - 1 if suffix > 1 else high // 2  # the two parts of SPM stand behind each other, cut anywhere
        cuts = (np.array([low, high]) + 0.5) / (len(text) + 1)
        assert rearrange(text, cuts, suffix == 1, True, context).tolist() == tokens
    assert set(kinds) == {True, False}  # both forms


def test_in_windows_each_text_is_rearranged_by_itself_and_the_window_keeps_its_length():
    written = texts(300)
    made = examples_of(FillInTheMiddle(rate=1.0, documents="concatenated"), written)
    assert {len(tokens) for tokens in made[:-1]} == {64}
    inside = [text for tokens in made[:-1] for text in "".join(map(chr, tokens)).split(chr(1))[1:-1]]
    assert len(inside) > 30
    for text in inside:
        assert sorted(character for character in text if ord(character) >= PRE) == [chr(PRE), chr(SUF), chr(MID)]
    plain = examples_of(FillInTheMiddle(rate=0.0, documents="concatenated"), written)
    assert plain == examples_of(CausalLM(documents="concatenated"), written)
