"""Files of fastText say what fastText says, and what is none is refused before its reader sees it."""

import json
import pathlib
import sys

import numpy as np
import pytest

from t5x_like.corpus import fasttext_model
from t5x_like.corpus.documents import batch_of, column, scores_of
from t5x_like.corpus.fasttext_model import FastTextFile, FastTextLanguage
from t5x_like.corpus.scoring import Score

FOLDER = pathlib.Path("tests/golden/fasttext")
FILE = str(FOLDER / "prose.bin")


def test_the_probability_of_a_label_is_that_of_fasttext_itself():
    pytest.importorskip("fasttext", reason="the extra fasttext is not installed")
    said = json.loads((FOLDER / "said.json").read_text())
    model = FastTextFile(path=FILE, label="__label__prose")
    wanted = [one["probabilities"]["__label__prose"] for one in said]
    found = model.scores([one["text"] for one in said])
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert found[0] > 0.95 and found[1] < 0.05
    np.testing.assert_allclose(
        FastTextFile(path=FILE, label="advert").scores([said[2]["text"]]), 1 - found[2], atol=1e-4
    )


def test_as_a_score_a_text_without_words_has_none():
    pytest.importorskip("fasttext", reason="the extra fasttext is not installed")
    batch = batch_of([{"text": "the old farmer"}, {"text": " \n"}, {"text": "buy\x00 now"}])
    found = scores_of(Score(model=FastTextFile(path=FILE, label="prose"), name="prose")(batch), "prose")
    assert found[0] > 0.9 and np.isnan(found[1]) and found[2] < 0.5


def test_a_language_is_told_where_the_source_does_not_and_what_is_unsure_goes():
    pytest.importorskip("fasttext", reason="the extra fasttext is not installed")
    texts = [("the old farmer", ""), ("buy cheap now", ""), ("nothing", ""), ("buy cheap now", "prose"), ("", "")]
    batch = batch_of([{"text": text, "language": language} for text, language in texts])
    told = FastTextLanguage(path=FILE, keep=("prose",), at_least=0.9)(batch)
    assert column(told, "language")[:2] == ["prose", "advert"] and column(told, "language")[3] == "prose"
    assert column(told, "reason") == [None, "language advert", "language unsure", None, "language unsure"]


def test_what_is_no_classifier_and_what_it_does_not_know_are_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("fasttext", reason="the extra fasttext is not installed")
    (tmp_path / "text.bin").write_text("no model " * 9)
    for make, message in (
        (lambda: FastTextFile(path="none.bin", label="x"), "no such file"),
        (lambda: FastTextFile(path=str(tmp_path / "text.bin"), label="x"), "is no file of fastText"),
        (lambda: FastTextFile(path=str(FOLDER / "vectors.bin"), label="x"), "holds word vectors"),
        (lambda: FastTextFile(path=FILE, label="good"), "label 'good': .* has advert, prose"),
        (lambda: FastTextLanguage(path=FILE, keep=("en",)), r"keep \['en'\]: .* no such label"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            make()
    monkeypatch.setitem(sys.modules, "fasttext", None)
    fasttext_model.model_of.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 't5x_like\[fasttext\]'"):
        FastTextFile(path=FILE, label="prose")
