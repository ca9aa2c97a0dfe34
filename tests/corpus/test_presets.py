"""ROOTS' and RefinedWeb's rules against their released code, document by document; the published vectors."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from t5x_like.corpus.refinedweb import RefinedWebLines
from t5x_like.corpus.roots import Roots, RootsEnglish, is_special, repeated_characters, repeated_words, stripped
from tests.golden.make import filter_vectors
from tests.golden.make.corpus_filters import digest_of, documents
from tests.golden.released_code import RELEASED
from tests.golden.web_pages import pages


@pytest.mark.parametrize("preset", [Roots, RootsEnglish])
def test_roots_keeps_and_measures_what_the_released_code_does(preset, tmp_path):
    given, found = RELEASED["ROOTS"]["inputs"], RELEASED["ROOTS"]["found"][preset.__name__]
    assert digest_of(documents()) == given["sha256"]
    paths = {}
    for name in ("stop_words", "flagged_words"):
        paths[name] = str(tmp_path / name)
        (tmp_path / name).write_text("\n".join(given[name]))
    step = preset(**paths)
    kept, measured = [], []
    for text in map(step.cut, documents()):
        kept.append(step.reason(text) is None)
        words = [bare.lower() for word in text.split() if (bare := stripped(word))]
        special = sum(map(is_special, text)) / len(text) if text else 0.0
        measured.append((repeated_characters(text, 10), repeated_words(words, 5), special))
    assert kept == [bool(one) for one in found["kept"]] and 20 < sum(kept) < 100
    names = ("repeated_characters", "repeated_words", "special_characters")
    for name, values in zip(names, np.array(measured).T, strict=True):
        np.testing.assert_allclose(values, found[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("short", "too few words"),
        ("one two three four five six " * 3, "repeated characters"),
        (" ".join(f"w{chr(97 + i)}" for i in range(20)), "too few stop words"),
        ("the cat and " + " ".join(f"q{chr(97 + i)}w" for i in range(12)) + " darn", "flagged words"),
        (" ".join(f"w{chr(97 + i)}{7919 * (i + 20)}" for i in range(12)), "special characters"),
    ],
)
def test_roots_names_the_rule(text, reason, tmp_path):
    (tmp_path / "stop").write_text("the\nand\nof\nbe\nto\na\n")
    (tmp_path / "bad").write_text("darn\n")
    step = Roots(stop_words=str(tmp_path / "stop"), flagged_words=str(tmp_path / "bad"), max_flagged_words=0.01)
    assert step.reason(step.cut(text)) == reason
    with pytest.raises(FileNotFoundError, match="is no file"):
        Roots(stop_words="none")


def test_long_words_and_addresses_are_cut_out_of_english():
    text = f"See www.example.org for  {'x' * 26} and\n\n{'y' * 25}, end.\t(http://a)"
    assert RootsEnglish().cut(text) == f"See for and\n{'y' * 25}, end."


def test_refinedweb_leaves_of_a_page_what_the_released_code_does():
    kept = 0
    for text, expected in zip(pages(), RELEASED["RefinedWeb"]["found"], strict=True):
        left, reason = RefinedWebLines().clean(text)
        assert (None if reason else hashlib.sha256(left.encode()).hexdigest()[:16]) == expected, text[:200]
        kept += reason is None
    assert 50 < kept < len(pages())


def test_the_published_vectors_are_what_the_presets_say():
    path = pathlib.Path("docs/filter_vectors.jsonl")
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert stored == json.loads(json.dumps(filter_vectors.vectors()))
    for preset in filter_vectors.PRESETS:
        said = {one[preset] if one[preset] is None or isinstance(one[preset], str) else "changed" for one in stored}
        assert len(said) >= 3 or preset == "MC4Lines", f"{preset} says only {said}"
