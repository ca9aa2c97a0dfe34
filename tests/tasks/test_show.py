import io
import json

import pytest
import rich.console

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

from data_tasks import instructions, shakespeare_char, text_corpus  # noqa: E402
from t5x_like.tasks import held_out, readers, registry  # noqa: E402
from t5x_like.tasks.check import check  # noqa: E402
from t5x_like.tasks.new import new  # noqa: E402
from t5x_like.tasks.prepare import prepare  # noqa: E402
from t5x_like.tasks.show import list_tasks, show  # noqa: E402
from t5x_like.vocabularies.train import train_sentencepiece  # noqa: E402


@pytest.fixture(autouse=True)
def clean_registry():
    before = set(registry.registered())
    yield
    for kind in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in set(kind.names()) - before:
            kind.remove(name)


@pytest.fixture
def jsonl(tmp_path):
    rows = [
        {"text": f"Thank you number {k} for inviting me to your party last week.", "answer": f"{k}"} for k in range(40)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "data.jsonl")


def printed(function, *arguments, **keywords):
    output = io.StringIO()
    function(*arguments, rich.console.Console(file=output, width=200), **keywords)
    return output.getvalue()


def test_a_new_task_file_of_twenty_lines_is_listed_shown_checked_and_prepared(jsonl, tmp_path):
    file = new("thanks", jsonl, folder=str(tmp_path / "files"))
    assert len(file.read_text().splitlines()) <= 25
    registry.import_modules([file])
    registry.import_modules([str(file)])  # twice is once
    assert "thanks" in printed(list_tasks) and "SpanCorruption" in printed(list_tasks)
    text = printed(show, "thanks", num_examples=2)
    assert "<extra_id_0>" in text and "[0:" in text and "2 of 2" in text
    (report,) = check("thanks")
    assert report.problems == [] and "tokens per document" in report.lines[1]
    (folder,) = prepare("thanks", output_dir=tmp_path / "out")
    assert (folder / "task.json").exists()
    with pytest.raises(FileExistsError, match="choose another name"):
        new("thanks", jsonl, folder=str(tmp_path / "files"))


def test_a_pair_of_fields_becomes_a_supervised_task(jsonl, tmp_path):
    registry.import_modules([new("pairs", jsonl, folder=str(tmp_path), fields=("text", "answer"))])
    assert "inviting me" in printed(show, "pairs", num_examples=1, lengths={"inputs": 80, "targets": 8})
    with pytest.raises(ValueError, match="one field of text, or two"):
        new("triple", jsonl, folder=str(tmp_path), fields=("text", "answer", "more"))


def test_check_reports_too_few_sentinels_and_texts_that_change(jsonl, tmp_path):
    model = train_sentencepiece(["Thank you me to 123"], output=tmp_path / "a.model", kind="char", vocab_size=100)
    text_corpus.register(name="lossy", path=jsonl, tokenizer=str(model))
    (report,) = check("lossy_span_corruption", lengths={"inputs": 2048, "targets": 1000})
    assert any("sentinels" in problem for problem in report.problems)
    assert any("do not decode to their text" in problem for problem in report.problems)


def test_a_corpus_task_file_registers_three_tasks_and_a_mixture(jsonl, tmp_path):
    file = text_corpus.write_task_file(str(tmp_path), name="party", path=jsonl, tokenizer=None)
    registry.import_modules([file])
    names = [name for name in registry.registered() if name.startswith("party")]
    assert names == ["party_causal_lm", "party_denoising", "party_prefix_lm", "party_span_corruption"]
    assert registry.find("party_denoising").rate_per_task_name == text_corpus.DENOISING_RATES.__class__(
        party_span_corruption=0.5, party_prefix_lm=0.5
    )
    with pytest.raises(ValueError, match="letters, digits"):
        text_corpus.register(name="my-party", path=jsonl, tokenizer=None)


def test_shakespeare_is_split_by_position_and_has_one_id_per_character(tmp_path):
    text = "".join(f"Line {k}: to be, or not to be?\n" for k in range(500))
    (tmp_path / "input.txt").write_text(text)
    model = train_sentencepiece([text], output=tmp_path / "char.model", kind="char", vocab_size=200)
    shakespeare_char.register(path=str(tmp_path / "input.txt"), tokenizer=str(model), name="play")
    (folder,) = prepare("play", output_dir=tmp_path)
    splits = json.loads((folder / "task.json").read_text())["splits"]
    cut = int(len(text) * 0.9)
    assert [splits[s]["tokens"]["targets"] for s in ("train", "validation")] == [cut, len(text) - cut]


def test_instructions_are_read_as_pairs(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"inputs": "q{k}", "targets": "a{k}"}}\n' for k in range(50)))
    instructions.register(name="questions", paths=[f"{tmp_path}/a.jsonl"], tokenizer=None)
    assert "q1" in printed(show, "questions", num_examples=5)


def test_mistakes_in_task_files_are_one_sentence(tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\ny = 1 / 0\n")
    (tmp_path / "syntax.py").write_text("x = = 1\n")
    with pytest.raises(ValueError, match=r"broken\.py failed at line 2: division by zero"):
        registry.import_modules([tmp_path / "broken.py"])
    with pytest.raises(ValueError, match=r"syntax\.py failed at line 1"):
        registry.import_modules([tmp_path / "syntax.py"])
    with pytest.raises(FileNotFoundError, match=r"did you mean broken\.py"):
        registry.import_modules([tmp_path / "brokn.py"])
    with pytest.raises(ValueError, match="no module 'no_such_module'"):
        registry.import_modules(["no_such_module"])


def test_a_corpus_holds_out_about_the_share_that_was_asked_for_whatever_its_files(tmp_path):
    shards = [tmp_path / f"{k}.jsonl" for k in range(2)]
    for path in shards:
        path.write_text('{"text": "one"}\n')
    books = [tmp_path / f"{k}.txt" for k in range(3)]
    many = [tmp_path / f"many{k}.txt" for k in range(40)]
    for path in books + many:
        path.write_text("text")
    rules = [
        text_corpus.rule_for(readers.JsonLines([str(path) for path in shards]), 0.05),
        text_corpus.rule_for(readers.TextFiles([str(path) for path in books]), 0.05),
        text_corpus.rule_for(readers.TextFiles([str(path) for path in many]), 0.05),
    ]
    assert rules == [held_out.ByDocument(0.05), held_out.Tail(0.05), held_out.ByFile(0.05)]
