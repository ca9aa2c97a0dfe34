"""Who is spoken of: labels of documents, what filters take from each group, and what stands near whom."""

import json
import math

import pytest

from t5x_like.corpus import report, tally
from t5x_like.corpus.bias import GroupMentions, associations, shares_left
from t5x_like.corpus.curate import curate
from t5x_like.corpus.documents import batch_of, column
from t5x_like.corpus.groups import GROUPS, OCCUPATIONS
from t5x_like.corpus.sources import Source
from t5x_like.corpus.word_lists import WordList
from t5x_like.tasks.readers import JsonLines


def labels(text, **settings):
    return GroupMentions(**settings).labels(text)


def test_groups_are_told_by_whole_words_and_phrases_in_any_case():
    assert labels("The Muslim and the Jewish family.") == {"religion: Muslims", "religion: Jews"}
    assert labels("Black people and a black cat") == {"origin: Black people"}
    assert labels("The heresy of this theme") == set()  # no "he" in "heresy", no "her" in it
    assert labels("Y’all from here, ye ken? Aye!") == {"dialect: African American English", "dialect: Scots"}
    assert labels("An ion of sodium") == set()
    assert labels("") == set()


def test_an_occupation_is_near_those_within_so_many_words():
    text = "She worked as a nurse. " + "word " * 12 + "The engineers were paid, he said."
    assert labels(text, near=5) >= {"nurse near women", "engineer near men"}
    assert "nurse near men" not in labels(text, near=5) and "engineer near women" not in labels(text, near=5)
    assert "nurse near men" in labels(text, near=40)
    assert not [label for label in labels("She is a glass engineering worker", near=5) if "near" in label]


def test_only_documents_of_the_language_are_labelled_and_labels_add_up():
    rows = [{"text": "she", "language": code, "row": i, "labels": ["x"]} for i, code in enumerate(["en", "de"])]
    found = column(GroupMentions()(batch_of(rows)), "labels")
    assert found == [["gender: women", "x"], ["x"]]


def test_lists_of_ones_own_are_read_and_wrong_ones_refused(tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"town": {"Yate": ["yate", "south of yate"]}}))
    assert labels("Near Yate.", lists=str(path)) == {"town: Yate"}
    path.with_name("bad.json").write_text("[1]")
    with pytest.raises(ValueError, match="is no file of lists"):
        GroupMentions(lists=str(path.with_name("bad.json")))
    with pytest.raises(ValueError, match="near 0"):
        GroupMentions(near=0)


def test_every_word_is_in_lower_case_and_in_one_group_of_its_kind():
    for kind, groups in GROUPS.items():
        words = [word for own in groups.values() for word in own]
        assert len(set(words)) == len(words) and all(word == word.lower() for word in words), kind
    assert len(set(OCCUPATIONS)) == len(OCCUPATIONS) and not set(OCCUPATIONS) & set(GROUPS["gender"]["men"])


def test_shares_are_over_that_of_all_and_associations_are_log_ratios():
    rows = shares_left({"a": 10, "b": 20, "n near women": 3}, {"a": 2, "b": 10}, read=100, left=50)
    assert rows == [("a", 10, 2, pytest.approx(0.4)), ("b", 20, 10, pytest.approx(1.0))]
    found = associations({"gender: women": 99, "gender: men": 199, "nurse near women": 9, "nurse near men": 1})
    assert found == {"nurse": pytest.approx(math.log((9.5 / 100) / (1.5 / 200)))}


def test_a_filter_that_takes_more_of_one_group_shows(tmp_path):
    """A word list that knows "gay" as a bad word, as LDNOOBW's did, and a corpus in which the word is harmless."""
    texts = [f"Story {i} of a gay couple and of the {job} she knew." for i, job in enumerate(["nurse", "cook"] * 10)]
    texts += [f"Story {i} of a couple and the {job} he knew." for i, job in enumerate(["nurse", "engineer"] * 30)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "words.txt").write_text("gay\n")
    source = Source(reader=JsonLines([str(tmp_path / "texts.jsonl")]), name="web", language="en")
    steps = [GroupMentions(), WordList(paths={"en": str(tmp_path / "words.txt")})]
    manifest = curate(output_dir=str(tmp_path / "out"), sources=[source], steps=steps, shards=1)
    told = tally.from_json(json.loads((tmp_path / "out" / "tally.json").read_text()))
    assert told.labels["1 GroupMentions"]["orientation: gay and lesbian people"] == 20
    assert told.labels["2 bad words WordList"]["orientation: gay and lesbian people"] == 0
    assert told.labels["2 bad words WordList"]["gender: men"] == 60
    page = report.page_of(manifest, told, "t")
    assert "orientation: gay and lesbian people" in page and "2 bad words WordList" in page
    assert "Occupations near women and near men" in page and "nurse" in page
