"""Gopher's, FineWeb's and C4's rules against datatrove's, document by document; words are split alike in both."""

import hashlib
import json
import pathlib

import pytest

from t5x_like.corpus.c4 import C4Paper, MC4Lines
from t5x_like.corpus.fineweb import FineWeb
from t5x_like.corpus.gopher import GopherQuality, GopherRepetition
from tests.golden.make.corpus_filters import digest_of, documents
from tests.golden.web_pages import C4_LINES, pages

GOLDEN = json.loads(pathlib.Path("tests/golden/corpus_filters.json").read_text())
STEPS = {"GopherQuality": GopherQuality(), "GopherRepetition": GopherRepetition(), "FineWeb": FineWeb()}
OURS = {
    "gopher_short_doc": "too few words",
    "gopher_long_doc": "too many words",
    "gopher_below_avg_threshold": "mean word length",
    "gopher_above_avg_threshold": "mean word length",
    "gopher_too_many_hashes": "too many hashes",
    "gopher_too_many_ellipsis": "too many ellipses",
    "gopher_too_many_bullets": "too many bullets",
    "gopher_too_many_end_ellipsis": "too many lines end in an ellipsis",
    "gopher_below_alpha_threshold": "too few words with a letter",
    "gopher_enough_stop_words": "too few stop words",
    "dup_para_frac": "repeated paragraphs",
    "dup_para_char_frac": "characters of repeated paragraphs",
    "dup_line_frac": "repeated lines",
    "dup_line_char_frac": "characters of repeated lines",
    **{f"top_{n}_gram": f"top {n}-gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"repeated {n}-grams" for n in range(5, 11)},
    "line_punct_ratio": "too few lines end a sentence",
    "short_line_ratio": "too many short lines",
    "char_dup_ratio": "characters of repeated lines",
    "list_ratio": "too many line breaks",
    "empty": "empty",
    None: None,
}


@pytest.mark.parametrize("name", STEPS)
def test_every_document_gets_the_reason_that_datatrove_gives(name):
    texts = documents()
    assert digest_of(texts) == GOLDEN["sha256"]
    for text, reason in zip(texts, GOLDEN[name], strict=True):
        assert STEPS[name].reason(text) == OURS[reason], text[:300]
    assert len(set(GOLDEN[name])) >= 5  # most rules have their document


def test_every_page_is_what_datatroves_c4_leaves_of_it():
    found = []
    for text, expected in zip(pages(C4_LINES), GOLDEN["C4Paper"], strict=True):
        kept, reason = C4Paper().clean(text)
        # datatrove's text is without empty ends.
        digest = hashlib.sha256(kept.strip().encode()).hexdigest()[:16]
        found.append(reason.replace(" ", "_") if reason else digest)
        assert found[-1] == expected, (text[:300], kept[:300])
    assert len({reason for reason in found if "_" in reason}) == 3 and sum("_" not in reason for reason in found) > 30
    long = [MC4Lines().reason(text) for text in pages(C4_LINES)]
    assert [reason is None for reason in long] == [reason is None for reason in GOLDEN["MC4Lines"]] and len(
        set(long)
    ) == 2
