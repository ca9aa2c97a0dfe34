"""Lines and passages that stand in a corpus again and again: what goes is what a plain search finds, nothing else."""

import json
import random
import re

import numpy as np
import pytest

from t5x_like.corpus import run
from t5x_like.corpus.curate import curate
from t5x_like.corpus.documents import batch_of, column
from t5x_like.corpus.repeated_lines import RepeatedLines, ccnet_words
from t5x_like.corpus.repeated_passages import RepeatedPassages, part_of, repeated, strike
from t5x_like.corpus.sources import Source
from t5x_like.tasks.readers import JsonLines
from tests.corpus.test_curate import lines as written_lines
from tests.corpus.test_minhash import text

MENU = "Home | About us | Contact"


def batch(texts):
    return batch_of([{"text": t, "file": 0, "row": i, "language": "en"} for i, t in enumerate(texts)])


def after(step, texts):
    """(texts, reasons) behind a step over all documents."""
    documents = batch(texts)
    chosen, *_ = step.choose(step.keys(documents))
    kept = step.take_away(documents, np.sort(chosen, order=["file", "row"]))
    return column(kept, "text"), column(kept, "reason")


def test_a_line_that_comes_twice_goes_wherever_it_stands():
    texts = [f"{MENU}\nOne story.", f"Another story.\n{MENU.upper()}!", "A third one.\nhome, about us, contact"]
    assert after(RepeatedLines(), texts)[0] == ["One story.", "Another story.", "A third one."]
    first, _ = after(RepeatedLines(keep="first"), texts)
    assert first == [texts[0], "Another story.", "A third one."]
    assert after(RepeatedLines(most=3), texts)[0] == texts
    assert after(RepeatedLines(characters=30), texts)[0] == texts


def test_digits_and_marks_do_not_tell_lines_apart_and_empty_lines_are_none():
    assert ccnet_words("  Page 12 of 345!  ") == "page 00 of 000" and ccnet_words(" -- ") == ""
    texts = ["Page 1 of 9\n\nText one.\n\n---", "Page 2 of 7\n\nText two.\n\n---"]
    assert after(RepeatedLines(), texts)[0] == ["\nText one.\n\n---", "\nText two.\n\n---"]


def test_by_lines_marks_and_digits_count_as_in_c4():
    assert after(RepeatedLines(by="line", keep="first"), ["a b\nc d", "A B\ne f", "a, b\ng h"])[0] == [
        "a b\nc d",
        "e f",
        "a, b\ng h",
    ]


def test_a_document_that_loses_all_is_dropped_and_shown_as_it_was():
    texts = [MENU, f"{MENU}\nStory.", "Untouched."]
    assert after(RepeatedLines(), texts) == ([MENU, "Story.", "Untouched."], ["repeated lines alone", None, None])


def test_paragraphs_are_compared_as_a_whole():
    notice = "All rights reserved.\nNo part may be copied."
    texts = [f"One.\n\n{notice}", f"{notice}\n\nTwo.", "No part may be copied.\n\nThree."]
    assert after(RepeatedLines(unit="paragraph"), texts)[0] == ["One.", "Two.", texts[2]]


def words_of(text):
    return re.findall(r"[^\W_]+", text.lower())


def plain_search(texts, size, kept=0):
    """Which words of each text lie in a run of `size` words that comes again anywhere, but for the first `kept`."""
    runs = {}
    for number, one in enumerate(texts):
        own = words_of(one)
        for place in range(len(own) - size + 1):
            runs.setdefault(tuple(own[place : place + size]), []).append((number, place))
    gone = [set() for _ in texts]
    for places in runs.values():
        if len(places) > 1:
            for number, place in places[kept:]:
                gone[number].update(range(place, place + size))
    return gone


def corpus(seed, texts=12):
    """Texts that share passages of every length, beginnings and ends too, and repeat themselves."""
    rng = random.Random(seed)
    shared = [text(rng, rng.randrange(3, 30)) for _ in range(6)]
    made = []
    for _ in range(texts):
        parts = [text(rng, rng.randrange(0, 20)) for _ in range(3)]
        for _ in range(rng.randrange(0, 3)):
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(shared))
        made.append(" ".join(word for part in parts for word in part) + ".")
    return made


@pytest.mark.parametrize(("keep", "kept"), [("none", 0), ("first", 1)])
@pytest.mark.parametrize("at_once", [1 << 25, 50])
@pytest.mark.parametrize("seed", range(3))
def test_what_goes_is_what_a_plain_search_finds(seed, at_once, keep, kept):
    texts = corpus(seed)
    gone = plain_search(texts, 8, kept)
    left, reasons = after(RepeatedPassages(words=8, at_once=at_once, keep=keep), texts)
    assert sum(map(len, gone)) > 50
    for before, behind, out, reason in zip(texts, left, gone, reasons, strict=True):
        expected = [w for i, w in enumerate(words_of(before)) if i not in out]
        assert words_of(behind) == (expected if reason is None else words_of(before))
        assert (reason is not None) == (len(expected) == 0 and bool(out))


def test_cuts_fall_on_words_in_scripts_with_and_without_spaces():
    assert strike("One, two; three (four) five!", [(1, 3)]) == "One, four) five!"
    assert strike("one two", [(0, 2)]) == "" and strike("one two", [(1, 2)]) == "one "
    assert strike("春眠不觉晓，处处闻啼鸟。", [(0, 5)]) == "处处闻啼鸟。"
    poem = "床前明月光疑是地上霜"
    kept, reasons = after(RepeatedPassages(words=10), [f"李白写道{poem}举头望明月", f"又见{poem}低头思故乡"])
    assert kept == ["李白写道举头望明月", "又见低头思故乡"] and reasons == [None, None]


def test_a_text_of_which_too_little_is_left_is_dropped():
    shared = " ".join(text(random.Random(1), 60))
    kept, reasons = after(RepeatedPassages(shortest=5), [shared + " and so on", f"{shared} he went home to his family"])
    assert reasons == ["repeated passages alone", None] and kept[1] == "he went home to his family"


def test_parts_by_first_bits_hold_every_hash_once():
    values = np.random.default_rng(0).integers(0, 1 << 63, 1000, np.uint64) * np.uint64(2)
    pieces = np.split(values, [100, 100, 700])
    places = [part_of(pieces, 3, part)[1] for part in range(8)]
    assert sorted(np.concatenate(places).tolist()) == list(range(1000)) and min(map(len, places)) > 50
    assert repeated(np.array([5, 6, 5, 5], np.uint64), keep_first=True).tolist() == [False, False, True, True]
    assert repeated(np.array([5, 6, 5, 5], np.uint64), keep_first=False).tolist() == [True, False, True, True]
    assert repeated(np.zeros(0, np.uint64), keep_first=True).tolist() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepeatedLines(by="page"), "choose one of words, line"),
        (lambda: RepeatedLines(unit="page"), "choose one of line, paragraph"),
        (lambda: RepeatedLines(keep="last"), "choose none or first"),
        (lambda: RepeatedLines(most=0), "must be at least 1"),
        (lambda: RepeatedPassages(keep="last"), "choose none or first"),
        (lambda: RepeatedPassages(words=1), "words at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_in_a_recipe_two_workers_take_the_same_away(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_BYTES", 1)
    texts = [f"{MENU}\n{t}" for t in corpus(3, 30)]
    for number in range(3):
        rows = [json.dumps({"text": t}) for t in texts[number::3]]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(rows))
    source = Source(reader=JsonLines([f"{tmp_path}/*.jsonl"]), name="web", language="en")
    steps = [RepeatedLines(), RepeatedPassages(words=8)]
    made = [
        curate(output_dir=str(tmp_path / str(n)), sources=[source], steps=steps, shards=1, workers=n) for n in (1, 2)
    ]
    assert made[0]["shards"] == made[1]["shards"] and made[0]["counts"]["RepeatedLines: lines taken away"] == 30
    rows = [row["text"] for shard in written_lines(tmp_path / "1") for row in shard]
    assert rows and not any(MENU in row for row in rows) and not any(plain_search(rows, 8)[i] for i in range(len(rows)))
