"""The report page: what it says, what it survives, and that it runs and fetches nothing."""

import html.parser
import json
import math
import re
import threading

import matplotlib
import pytest

from t5x_like.reporting.page import safe
from t5x_like.reporting.plots import MAX_POINTS, short
from t5x_like.reporting.report import headline, write_report
from t5x_like.reporting.run_folder import config_values, held_out, parse_lines, read_run, series, token_shares

STEPS = 300
CONFIG = """# Resolved by t5x_like: every value and where it came from. This file alone restarts the run.

train.steps = 300  # command line
train.seed = 0  # default
train.note = 'a  # b'  # run.gin:4
"""


@pytest.fixture
def run(tmp_path):
    """Writes a run folder with every piece and returns its path."""

    def write(name="first", rate=1e-3, config=CONFIG):
        folder = tmp_path / name
        (folder / "evaluation").mkdir(parents=True)
        loss = [2 + 7 * math.exp(-step / 50) for step in range(STEPS + 1)]
        rows = [
            {"step": s, "loss": loss[s], "learning_rate": rate, "tokens/a": 3, "tokens/b": 1} for s in range(1, 301)
        ]
        rows += [{"step": s, "eval/a/loss": loss[s] + 0.1, "eval/a/accuracy": 0.5} for s in (1, 100, 200)]
        write_lines(folder / "metrics.jsonl", rows)
        speed = [{"step": s, "tokens_per_second": 1000.0 + s, "data_wait_share": 0.01} for s in range(10, 301, 10)]
        write_lines(folder / "timings.jsonl", speed)
        result = {
            "loss": 2.05,
            "perplexity": 7.77,
            "accuracy": 0.6,
            "tokens": 10,
            "bits_per_byte": 1.5,
            "unigram_loss": 6.0,
        }
        evaluation = {"checkpoint step": 300, "tasks": {"a": result}}
        (folder / "evaluation/300.json").write_text(json.dumps(evaluation))
        (folder / "summary.json").write_text(json.dumps({"model": "Decoder", "parameters": "1,234,567"}))
        write_lines(folder / "events.jsonl", [{"time": 1.7e9, "event": "resumed at step", "text": "120"}])
        write_lines(folder / "samples.jsonl", [SAMPLE])
        (folder / "config.gin").write_text(config)
        return folder

    return write


SAMPLE = {
    "task": "a",
    "step": 300,
    "input": "Thank you <extra_id_0> me to your <extra_id_1> last week",
    "truth": "<extra_id_0> for inviting<extra_id_1> party",
    "model": "<extra_id_0> for asking<extra_id_1> party",
}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def page(folders, tmp_path):
    return write_report(folders, tmp_path / "out/report.html").read_text()


class Checker(html.parser.HTMLParser):
    """Fails on tags that do not nest, and collects tags, attributes and text."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open += [] if tag in {"meta"} else [tag]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_says_what_was_learned(run, tmp_path):
    text = page([run()], tmp_path)
    assert "Held-out loss of a fell from 8.961 at step 1 to 2.050 nats per token at step 300." in text
    assert "A unigram model has 6.000: the run is 3.950 better." in text
    for part in ("1,234,567", "resumed at step", "2023-11-14 22:13:20", "2 of 3 values are not the default", "7.8"):
        assert part in text


def test_a_run_that_is_no_better_than_unigrams_is_told_so(run):
    folder = run()
    evaluation = {"checkpoint_step": 300, "tasks": {"a": {"loss": 6.5, "unigram_loss": 6.0}}}
    (folder / "evaluation/300.json").write_text(json.dumps(evaluation))
    assert headline(read_run(folder)).endswith("A unigram model has 6.000: the run is not yet better than that.")


def test_tasks_count_in_the_headline_by_their_tokens(run):
    folder = run()
    tasks = {"a": {"loss": 2.0, "tokens": 30}, "b": {"loss": 4.0, "tokens": 10}}
    for step in (100, 300):
        (folder / f"evaluation/{step}.json").write_text(json.dumps({"step": step, "tasks": tasks}))
    assert "(mean of 2 tasks)" in headline(read_run(folder)) and "to 2.500 nats" in headline(read_run(folder))


def test_a_sample_is_shown_with_its_gaps_filled_in(run, tmp_path):
    text = page([run()], tmp_path)
    assert "<mark>for asking</mark> <del>for inviting</del> me to your <ins>party</ins> last week" in text


PIECES = [
    "config.gin",
    "metrics.jsonl",
    "timings.jsonl",
    "summary.json",
    "events.jsonl",
    "samples.jsonl",
    "evaluation",
]


@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_may_be_absent_or_stand_alone(run, tmp_path, piece):
    without, alone = run("without"), run("alone")
    for name in PIECES:
        path = (without if name == piece else alone) / name
        path.rename(tmp_path / f"{name}.moved.{path.parent.name}")
    Checker(page([without], tmp_path))
    Checker(page([alone], tmp_path))
    Checker(page([alone, without], tmp_path))


def test_an_empty_folder_has_a_report_and_a_missing_one_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "Nothing has been measured yet." in page([tmp_path / "empty"], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no run folder .*gone"):
        page([tmp_path / "gone"], tmp_path)
    with pytest.raises(ValueError, match="no run folder given"):
        page([], tmp_path)


def test_a_torn_last_line_is_no_error_and_a_broken_one_is_counted(run, tmp_path):
    assert parse_lines('{"a": 1}\n{"b": 2}\n{"c') == ([{"a": 1}, {"b": 2}], 0)
    assert parse_lines('{"a": 1}\nnonsense\n[1]\n\n{"b": 2}') == ([{"a": 1}, {"b": 2}], 2)
    folder = run()
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('nonsense\n{"step": 301, "lo')
    assert "1 unreadable line of metrics.jsonl was skipped." in page([folder], tmp_path)


def test_a_step_that_was_done_again_counts_once_as_last_written(run):
    folder = run()
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "loss": 1.25}\n')
    losses = series(read_run(folder).metrics, "loss")
    assert len(losses.steps) == STEPS and losses.values[6] == 1.25 and (losses.steps[1:] > losses.steps[:-1]).all()


def test_loop_and_evaluation_make_one_held_out_curve(run):
    losses = held_out(read_run(run()), "a", "loss")
    assert losses.steps.tolist() == [1, 100, 200, 300] and losses.values[-1] == 2.05


def test_a_loss_that_is_not_finite_is_told_and_drawn_around(run, tmp_path):
    folder = run()
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 9, "loss": "nan"}\n{"step": 10, "loss": Infinity}\n{"step": 11, "loss": "high"}\n')
    text = page([folder], tmp_path)
    assert "The training loss was not finite at step 9." in text and "nan" not in text.lower()


HOSTILE = (
    '</style><script>alert(1)</script><img src=x onerror="alert(1)"> & \x1b[31m\x00\u202e\ud800 "q" \'s\' $x_{1}$ 漢字'
)


def test_text_of_the_data_is_only_ever_text(run, tmp_path):
    folder = run()
    evil = {"step": 300, f"eval/{HOSTILE}/loss": 3.0, f"tokens/{HOSTILE}": 3}
    write_lines(folder / "metrics.jsonl", [evil, {**evil, "step": 301}])
    write_lines(folder / "samples.jsonl", [dict.fromkeys(("task", "input", "truth", "model", "step"), HOSTILE)])
    write_lines(folder / "events.jsonl", [{"time": HOSTILE, "event": HOSTILE, "text": HOSTILE}, {"time": 1e200}])
    (folder / "summary.json").write_text(json.dumps({HOSTILE: HOSTILE, "nested": {"a": [HOSTILE]}}))
    (folder / "config.gin").write_text(f"train.note = {HOSTILE}  # {HOSTILE}\n", "utf-8", errors="replace")
    for folders in ([folder], [folder, run("second")]):
        text = page(folders, tmp_path)
        found = Checker(text)
        assert not {"script", "img", "link", "iframe", "object", "a"} & set(found.tags)
        assert not [name for name, _ in found.attributes if name.startswith("on")]
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
        assert "漢字" in text and "$x_{1}$" in text


def test_safe_keeps_lines_and_tabs():
    assert safe("a\r\nb\tc\rd<") == "a\nb\tcd&lt;"


def test_the_page_fetches_nothing(run, tmp_path):
    text = page([run("first"), run("second")], tmp_path)
    attributes = Checker(text).attributes
    links = [value for name, value in attributes if name in {"src", "href", "xlink:href", "data"}]
    assert all(value.startswith("#") for value in links)
    assert "url(http" not in text and "@import" not in text and "default-src 'none'" in text
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))  # clip paths and markers of one figure are not taken from another


def test_several_runs_show_where_their_configs_differ(run, tmp_path):
    other = CONFIG.replace("train.seed = 0", "train.seed = 1")
    text = page([run("one"), run("two", rate=3e-4, config=other)], tmp_path)
    differing = text[text.index("Differences in configuration") : text.index("Configurations</h2>")]
    assert "train.seed" in differing and "train.steps" not in differing
    assert "2 runs compared" in text


def test_runs_whose_folders_have_one_name_are_told_apart(run, tmp_path):
    text = page([run("a/same"), run("b/same")], tmp_path)
    assert "same (1)" in text and "same (2)" in text


def test_the_same_folder_gives_the_same_page(run, tmp_path):
    folder = run()
    assert page([folder], tmp_path) == page([folder], tmp_path)


def test_a_long_run_makes_no_long_page(run, tmp_path):
    folder = run()
    short_page = len(page([folder], tmp_path))
    write_lines(folder / "metrics.jsonl", [{"step": s, "loss": 1 / (s + 1)} for s in range(100 * MAX_POINTS)])
    assert len(page([folder], tmp_path)) < 3 * short_page


def test_drawing_leaves_no_state_and_no_pyplot_behind(run, tmp_path):
    before = settings()
    threads = threading.active_count()
    page([run()], tmp_path)
    assert settings() == before and threading.active_count() == threads


def settings():
    """Without the backend, which matplotlib chooses when it is asked for."""
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}


def test_a_report_replaces_the_old_one_whole(run, tmp_path):
    folder = run()
    page([folder], tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_shares_are_of_the_training_tokens(run):
    assert token_shares(read_run(run())) == {"a": 0.75, "b": 0.25}


def test_a_value_with_a_comment_sign_keeps_it():
    assert config_values(CONFIG)["train.note"] == ("'a  # b'", "run.gin:4")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2000, "2k"), (12500, "12.5k"), (3e6, "3M"), (1.5, "1.5"), (0.0003, "3e-4"), (2.5e-4, "2.5e-4")],
)
def test_axis_numbers_are_short(value, text):
    assert short(value) == text
