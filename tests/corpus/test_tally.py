"""What is counted while a recipe runs, and the page that shows it."""

import html.parser
import json
import re

import numpy as np
import pytest

from t5x_like.corpus import report, run, tally
from t5x_like.corpus.c4 import C4
from t5x_like.corpus.cleaning import Whitespace
from t5x_like.corpus.curate import curate
from t5x_like.corpus.documents import batch_of, with_scores
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.gopher import GopherQuality
from t5x_like.corpus.sources import Source
from t5x_like.tasks.readers import JsonLines
from tests.corpus.test_steps import GOOD


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """16 documents of two sources in four files: two kept once each, the rest copies or too short."""
    folder = tmp_path_factory.mktemp("tally")
    for source in "ab":
        for number in range(2):
            texts = [GOOD, f"<script>alert({number})</script>", GOOD.replace("railway", source), "é short"]
            lines = [json.dumps({"text": text}) for text in texts]
            (folder / f"{source}{number}.jsonl").write_text("\n".join(lines))
    return folder


def made(corpus, output, **changes):
    sources = [
        Source(reader=JsonLines([f"{corpus}/{name}*.jsonl"]), name=name, language=language)
        for name, language in (("a", "en"), ("b", "de"))
    ]
    steps = (Whitespace(), C4(), ExactDuplicates(), GopherQuality())
    return curate(output_dir=str(output), sources=sources, steps=steps, shards=1, **changes)


def test_after_every_step_it_is_known_what_is_left_of_each_source_and_language(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_BYTES", 1)
    manifest = made(corpus, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "tally.json").read_text())
    steps = ["read", "1 Whitespace", "2 C4", "3 ExactDuplicates", "4 GopherQuality"]
    assert sorted(told["funnel"], key=tally.place_of) == steps
    documents = {step: {group: sizes[0] for group, sizes in told["funnel"][step].items()} for step in steps}
    assert documents["read"] == {"a, en": 8, "b, de": 8} and documents["2 C4"] == {"a, en": 4, "b, de": 4}
    assert documents["3 ExactDuplicates"] == {"a, en": 2, "b, de": 1} == documents["4 GopherQuality"]
    _, characters, size = told["funnel"]["read"]["a, en"]
    assert size == characters + 2 and sum(told["funnel"]["4 GopherQuality"]["a, en"][1:2]) < characters
    assert set(told["seconds"]) == set(steps) and min(told["seconds"].values()) >= 0
    assert told["kept"]["2 C4"][0].startswith("The first railway")
    assert manifest["kept"] == sum(documents["4 GopherQuality"].values())


def test_two_workers_count_the_same(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_BYTES", 1)
    told = []
    for workers in (1, 2):
        made(corpus, tmp_path / str(workers), workers=workers)
        told.append(json.loads((tmp_path / str(workers) / "tally.json").read_text()))
        del told[-1]["seconds"]
    assert told[0] == told[1]


def scored(values):
    rows = [{"text": f"text {value}", "row": i, "language": "en"} for i, value in enumerate(values)]
    return with_scores(batch_of(rows), "s", np.array(values))


def test_tallies_add_up_as_one(tmp_path):
    values = np.random.default_rng(0).lognormal(3, 2, 300)
    together, added = tally.Tally(), tally.Tally()
    together.measured("s", scored(values))
    for part in np.split(values, 6):
        own = tally.Tally()
        own.measured("s", scored(part))
        added.add(tally.from_json(own.as_json()))
    assert added.as_json() == together.as_json()
    assert sum(count for count, _ in added.scores["s"]["en"].values()) == 300


def test_a_value_lies_in_its_bin_and_bins_follow_one_another():
    for value in (1e-5, 0.3, 1.0, 57.0, 1e5):
        number = tally.bin_of(value)
        assert tally.lower_edge(number) <= value * (1 + 1e-9) < tally.lower_edge(number + 1) * (1 + 2e-9)
        assert tally.bin_of(-value) == -number
    assert tally.bin_of(0.0) == 0 and tally.lower_edge(0) == 0
    assert tally.lower_edge(101) / tally.lower_edge(100) == pytest.approx(1.05)


class Parts(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.texts, self.bins, self._inside = [], 0, [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag
        self.scripts += tag == "script"
        self.bins += [json.loads(dict(attrs)["data-bins"])] if "data-bins" in dict(attrs) else []

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.texts.append(data)


def test_the_page_shows_every_step_reason_and_score_and_runs_no_text(corpus, tmp_path):
    manifest = made(corpus, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    parts = Parts(page)
    assert parts.scripts == 1 and "alert(0)" in " ".join(parts.texts)  # a document's own script is text
    for name in ("1 Whitespace", "C4: too few sentences: 8 (50.0%)", "ExactDuplicates: duplicate words: 5 (31.2%)"):
        assert name in parts.texts
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", page) and "http://" not in page and "https" not in page
    told = tally.from_json(json.loads((tmp_path / "out" / "tally.json").read_text()))
    told.measured("s", scored([0.5, 0.5, 20.0]))
    (bins,) = Parts(report.page_of(manifest, told, "title")).bins
    assert [count for _, count, _ in bins] == [2, 1] and bins[1][2] == "text 20.0"


def test_the_page_of_nothing_says_so(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    source = Source(reader=JsonLines([str(tmp_path / "empty.jsonl")]), name="a")
    curate(output_dir=str(tmp_path / "out"), sources=[source], steps=(C4(),), shards=1)
    assert "No document could be read." in (tmp_path / "out" / "report.html").read_text()
