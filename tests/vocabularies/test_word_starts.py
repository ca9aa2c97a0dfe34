"""Which pieces begin a word, for each kind of vocabulary."""

import json

import numpy as np
import pytest
import tokenizers

from t5x_like.vocabularies import load, word_starts
from t5x_like.vocabularies.special_tokens import SpecialTokens, from_control_pieces


def test_a_space_byte_begins_a_word():
    vocabulary = load.open_vocabulary(load.describe("byte", None, extra_ids=2), None)
    ids = vocabulary.encode("two words\n")
    assert np.flatnonzero(vocabulary.begins_word[ids]).tolist() == [3, 9]
    assert len(vocabulary.begins_word) == vocabulary.size


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (tokenizers.models.WordPiece({"inter": 0, "##national": 1, "law": 2}, unk_token="law"), [True, False, True]),
        (tokenizers.models.BPE({"Ġinter": 0, "national": 1, "Ċ": 2}, []), [True, False, True]),
        (tokenizers.models.BPE({"▁inter": 0, "national": 1, "▁": 2}, []), [True, False, True]),
    ],
    ids=["WordPiece", "byte-level BPE", "Metaspace"],
)
def test_the_sign_of_the_model_tells(model, expected):
    tokenizer = tokenizers.Tokenizer(model)
    assert json.loads(tokenizer.to_str())["model"]
    found = word_starts.of_tokenizers(tokenizer.to_str(), tokenizer.get_vocab(), 4)
    assert found.tolist() == [*expected, False]


def test_the_names_of_bert_have_roles_and_a_piece_that_ends_texts_stays_what_it_is():
    ids = {"[PAD]": 0, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, "<mark:e1>": 104}
    special = from_control_pieces(ids, base=SpecialTokens(pad=0, eos=102))
    assert (special.cls, special.mask, special.separator_token()) == (101, 103, 102)
    assert special.marker("e1") == 104
    with pytest.raises(ValueError, match="train the tokenizer with the control piece <mark:e2>"):
        special.marker("e2")


def test_a_vocabulary_without_cls_begins_with_pad():
    assert SpecialTokens(pad=0, eos=1).cls_token() == 0
