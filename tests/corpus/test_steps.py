"""Every step that judges one document: what the rules say, and that it sees nothing but the document."""

import pathlib
import random

import pyarrow as pa
import pytest

from t5x_like.corpus.c4 import C4, C4Paper, MC4Lines
from t5x_like.corpus.cleaning import Language, NormalizeUrl, RepairText, Whitespace, normalize_url
from t5x_like.corpus.decontamination import Decontaminate
from t5x_like.corpus.documents import SCHEMA, batch_of, column
from t5x_like.corpus.fineweb import FineWeb
from t5x_like.corpus.gopher import (
    REPEATED_NGRAMS,
    TOP_NGRAMS,
    GopherQuality,
    GopherRepetition,
    ngram_reason,
    repeated_ngrams,
    top_ngram,
)
from t5x_like.corpus.personal_data import FINDERS, PersonalData, chinese_check, find, luhn
from t5x_like.corpus.refinedweb import RefinedWebLines
from t5x_like.corpus.roots import Roots, RootsEnglish
from t5x_like.corpus.scoring import KeepBetween
from t5x_like.corpus.word_lists import WordList

SENTENCE = "The cat sat on the mat and looked at the dog with that old face."
GOOD = """\
The first railway across the valley was opened in the spring of that year.
Farmers sold their milk to dairies in the city, which they had never done before.
A teacher from the coast wrote letters about the changes she saw every week.
Her brother kept them with his papers, and they were found by chance in an attic.
Today historians have used these letters to describe how quickly people moved.
Some villages grew to be towns, while others lost half of their young families.
It took more than twenty years until the bridges were strong enough for trucks.
Nobody could say whether the river or the road would decide what happened next."""
LISTS = pathlib.Path(__file__).parent / "bad_words.txt"
STEPS = {
    "repair": RepairText(),
    "whitespace": Whitespace(),
    "url": NormalizeUrl(),
    "language": Language(),
    "c4": C4(),
    "c4 paper": C4Paper(),
    "gopher quality": GopherQuality(),
    "gopher repetition": GopherRepetition(),
    "fineweb": FineWeb(),
    "refinedweb lines": RefinedWebLines(),
    "mc4 lines": MC4Lines(lines=0),
    "roots": Roots(),
    "roots english": RootsEnglish(),
    "keep between": KeepBetween(score="s", low=0.0),
    "word list": WordList(paths={"en": str(LISTS)}),
    "personal data": PersonalData(),
    "decontaminate": Decontaminate(paths=[str(LISTS)]),
}
every = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
TEXTS = [GOOD, "short", "a b\n" * 300, GOOD + "\nmail me at joe@example.org", "   \n", "Ã©tÃ© " * 60]


def batch(texts, **columns):
    rows = [{"text": text, "row": i, "file": 0} for i, text in enumerate(texts)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return batch_of(rows)


@every
def test_rows_and_their_order_stay_and_batches_do_not_matter(step):
    whole = step(batch(TEXTS))
    assert whole.schema == SCHEMA and column(whole, "row") == list(range(len(TEXTS)))
    parts = [step(batch(TEXTS).slice(i, 1)) for i in range(len(TEXTS))]
    assert pa.Table.from_batches(parts).combine_chunks().equals(pa.Table.from_batches([whole]))
    assert len(step(batch([]))) == 0


@every
def test_a_good_text_stays(step):
    assert column(step(batch([GOOD], language=["en"])), "reason") == [None]


@every
def test_what_was_clean_stays_what_it_is(step):
    once = step(batch(TEXTS, language=["en"] * len(TEXTS)))
    again = step(once)
    assert column(once, "text") == column(again, "text")


def reason(step, text, **columns):
    return column(step(batch([text], **{name: [value] for name, value in columns.items()})), "reason")[0]


def text_of(step, text, **columns):
    return column(step(batch([text], **{name: [value] for name, value in columns.items()})), "text")[0]


def test_c4_takes_lines_and_pages_as_its_code_does_and_the_paper_preset_as_the_paper():
    lines = ["Too short here.", "This line has no end mark at all", "We use cookies and you agree to that.", SENTENCE]
    page = "\n".join(
        [*lines, "Please enable javascript in your browser now.", "See [12] what he said to us all [edit]."]
    )
    assert text_of(C4(sentences_per_page=1), page) == SENTENCE + "\n" + "See  what he said to us all ."
    assert reason(C4(), page) == "too few sentences"
    assert reason(C4(), GOOD + "\nint main() { return zero and one. }.") == "curly bracket"
    assert reason(C4(), GOOD + "\nLorem ipsum dolor sit amet and so on.") == "lorem ipsum"
    assert reason(C4(), "x" * 190_001) == "page too long"
    three = "\n".join([SENTENCE] * 3)
    assert reason(C4(), three) is None and reason(C4Paper(), three) == "too few sentences"
    assert text_of(C4Paper(), GOOD + "\nOnly three words.").endswith("words.")
    assert "ends in" not in text_of(C4(), GOOD + "\nThis one ends in three dots as it were...")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" ".join(["word"] * 49), "too few words"),
        ("the of " + " ".join(["extraordinarilylong"] * 60), "mean word length"),
        ("the of " + " ".join(["a"] * 60), "mean word length"),
        (GOOD + " #" * 40, "too many hashes"),
        (GOOD + " wait..." * 20, "too many ellipses"),
        ("\n".join("- " + SENTENCE for _ in range(10)), "too many bullets"),
        ("\n".join(SENTENCE + " and so on and on..." for _ in range(10)), "too many lines end in an ellipsis"),
        (GOOD + " 12345" * 60, "too few words with a letter"),
        (" ".join(f"wort{i}" for i in range(60)), "too few stop words"),
        (GOOD, None),
    ],
)
def test_gopher_quality_names_the_rule(text, expected):
    assert GopherQuality().reason(text) == expected


def test_gopher_repetition_counts_later_copies_and_each_character_once():
    assert GopherRepetition().reason("\n".join([SENTENCE] * 3)) == "repeated lines"
    assert GopherRepetition().reason("\n\n".join([SENTENCE] * 3)) == "repeated paragraphs"
    assert top_ngram(["a", "b", "a", "b", "a", "c"], 2) == 2 * len("a b")
    assert top_ngram(["aaa", "b", "c", "d"], 2) == len("aaa b")
    assert repeated_ngrams(["a", "b", "c", "d", "e", "a", "b", "c", "d", "e", "f"], 5) == 5
    words = " ".join(f"n{i}" for i in range(40))
    assert GopherRepetition().reason(" ".join([words, "over and out"] * 5)).startswith(("top", "repeated"))
    assert GopherRepetition().reason(" ".join(["to be"] * 30)) == "top 2-gram"


def test_gopher_repetition_by_bounds_is_that_by_counting():
    rng = random.Random(0)
    for _ in range(300):
        size = rng.choice([2, 5, 20, 200])
        words = [
            rng.choice("abcdefghijklmnopqrstuvwxyz"[: rng.choice([2, 5, 26])]) * rng.choice([1, 3]) for _ in range(size)
        ]
        words = words * rng.choice([1, 1, 2, 4]) + [f"x{i}" for i in range(rng.choice([0, 50, 400]))]
        characters = len(" ".join(words))
        expected = next((f"top {n}-gram" for n, s in TOP_NGRAMS if top_ngram(words, n) > s * characters), None)
        expected = expected or next(
            (f"repeated {n}-grams" for n, s in REPEATED_NGRAMS if repeated_ngrams(words, n) > s * characters), None
        )
        assert ngram_reason(words, characters) == expected


def test_fineweb_looks_at_lines():
    assert FineWeb().reason("\n".join(f"no end mark on line {i} and it is longer than thirty" for i in range(9))) == (
        "too few lines end a sentence"
    )
    assert FineWeb().reason("\n".join(f"Line {i} is short." for i in range(9))) == "too many short lines"
    assert FineWeb().reason(GOOD + "\n" + SENTENCE + "\n" + SENTENCE) == "characters of repeated lines"
    long = "Antidisestablishmentarianism-is-one-word."
    assert FineWeb().reason("\n".join(f"{long}{i}." for i in range(9))) == "too many line breaks"


def test_text_in_the_wrong_encoding_is_repaired_and_other_text_left_alone():
    assert text_of(RepairText(), "L&rsquo;Ã©tÃ© est lÃ\xa0") == "L’été est là"
    assert text_of(RepairText(), "æ—¥æœ¬èªž ÐŸÑ€Ð¸Ð²ÐµÑ‚ KÃ¶ln") == "日本語 Привет Köln"
    for text in ("naïve “quotes” ﬁ Ａ", "日本語。", "a\tb"):
        assert text_of(RepairText(), text) == text
    assert text_of(RepairText(), "a\x00b\r\nc\u200b") == "ab\nc"
    assert text_of(RepairText(), "e\u0301") == "é"


def test_the_language_is_told_by_the_text_or_by_its_source():
    texts = [
        GOOD,
        "Der Hund und die Katze sitzen auf der alten Bank vor dem Haus und warten.",
        "狗和猫坐在长凳上等着主人回家吃饭。",
    ]
    found = Language(at_least=0.5)(batch(texts))
    assert column(found, "language") == ["en", "de", "zh"]
    assert reason(Language(keep=["de"]), GOOD) == "language en"
    assert reason(Language(keep=["xx"]), GOOD, language="xx") is None
    assert reason(Language(at_least=0.999), "ok 1 2 3") == "language unsure"


def test_addresses_of_one_page_become_one():
    pages = ["https://www.a.org/x/?utm_source=3", "http://a.org/x/", "a.org/x?ref=1"]
    assert {normalize_url(url) for url in pages} == {"a.org/x"}


def test_words_of_a_list_count_only_whole_and_in_their_language(tmp_path):
    (tmp_path / "zh.txt").write_text("坏话\n")
    step = WordList(paths={"en": str(LISTS), "zh": str(tmp_path / "zh.txt")})
    assert reason(step, "what a darnit thing", language="en") == "bad words (en)"
    assert reason(step, "what a VERY BAD thing", language="en") == "bad words (en)"
    assert reason(step, "undarnitable", language="en") is None
    assert reason(step, "darnit", language="de") is None
    assert reason(step, "他说坏话了", language="zh") == "bad words (zh)"
    assert reason(WordList(paths={"en": str(LISTS)}, max_share=0.5), "a darnit thing", language="en") is None
    with pytest.raises(FileNotFoundError, match="is no file"):
        WordList(paths={"en": "nowhere"})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to j.doe+x@mail.example.co.uk today", "email"),
        ("server 8.8.8.8 answers", "ip"),
        ("server 2001:4860:4860::8888 answers", "ip"),
        ("card 4111 1111 1111 1111 please", "card"),
        ("call +49 30 901820 now", "phone"),
        ("call (212) 555-0199 now", "phone"),
        ("id 11010519491231002X here", "id"),
        ("ssn 078-05-1120 here", "id"),
        ("token ghp_" + "a1" * 18 + " leaked", "key"),
        ("AKIAIOSFODNN7EXAMPLE", "key"),
    ],
)
def test_personal_data_is_found_as_its_kind(text, kind):
    assert [span.kind for span in find(text, tuple(FINDERS))] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4.5 and 10.0.0.1 and 127.0.0.1 and 999.1.1.1",
        "card 4111 1111 1111 1112",
        "zeros 0000 0000 0000 0000",
        "id 110105194912310021",
        "not an address: a@b",
        "pi is 3.14159265358979323846 and 12:30:45",
        "pages 123-456 of 2024-11-26",
    ],
)
def test_what_only_looks_like_personal_data_stays(text):
    assert find(text, tuple(FINDERS)) == []
    assert text_of(PersonalData(), text) == text


def test_the_same_value_gets_the_same_placeholder():
    text = "a@b.org and c@d.org, again A@b.org"
    assert text_of(PersonalData(), text) == "<email-1> and <email-2>, again <email-1>"
    assert reason(PersonalData(most=1), text) == "personal data"
    many = " ".join(f"a{i}@b.org" for i in range(20_000))
    assert reason(PersonalData(), many) == "personal data"
    assert luhn("79927398713") and not luhn("79927398710")
    assert chinese_check("11010519491231002X") and not chinese_check("110105194912310021")


def test_runs_of_an_evaluation_set_are_found_whatever_their_case_and_punctuation(tmp_path):
    asked = "which of these eight cats sat on the very old red mat by the door last night"
    (tmp_path / "eval.txt").write_text(asked + "\nnine words are enough to be asked for here\nfive words are too few\n")
    step = Decontaminate(paths=[str(tmp_path / "eval.txt")])
    assert step.longest_hit(GOOD + " " + asked.upper().replace(" ", ", "))[1:] == (1, 17)
    assert reason(step, GOOD + " " + asked) == "eval.txt line 1"
    assert step.longest_hit("Well: nine words are enough to be asked for here!")[1:] == (2, 9)
    for clean in (" ".join(asked.split()[:12]), "five words are too few", GOOD):
        assert step.longest_hit(clean) is None
