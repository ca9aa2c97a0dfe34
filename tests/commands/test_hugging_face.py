"""`import`, train on, `export`, as a user types them."""

import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy

from t5x_like.models.hugging_face import tokenizer_files
from tests.commands.command_line import succeed, t5x_like
from tests.golden.hugging_face_weights import weights

GOLDEN = json.loads(pathlib.Path("tests/golden/hugging_face/llama.json").read_text())
RUN = """
include '{model}'
include 'optimizers/adamw.gin'
train.steps = 2
train.data = @Pipeline()
train.initial = @FromCheckpoint()
FromCheckpoint.folder = '{checkpoints}'
Pipeline.directory = '{data}'
Pipeline.mixture = 'small_causal_lm'
Pipeline.lengths = {{'targets': 64}}
Pipeline.batch_size = 8
Pipeline.rows_per_block = 8
Pipeline.num_streams = 8
Pipeline.render = @decoder_only
Decoder.vocab_size = 384
warmup_cosine.warmup_steps = 1
warmup_cosine.total_steps = 2
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model as transformers saves it."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "config.json").write_text(json.dumps(GOLDEN["config"]))
    (folder / "tokenizer.json").write_text("{}")
    safetensors.numpy.save_file(weights(GOLDEN), str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "llama"
    succeed("import", source, f"--output_dir={folder}", "--layer_loop=scanned")
    return folder


@pytest.fixture(scope="module")
def gin(imported, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("gin") / "run.gin"
    path.write_text(RUN.format(model=imported / "model.gin", checkpoints=imported / "checkpoints", data=data))
    return path


def tensors_of(folder):
    return safetensors.numpy.load_file(str(folder / "model.safetensors"))


def test_what_is_imported_comes_out_again(imported, tmp_path):
    succeed("export", imported, "--family=llama", f"--output_dir={tmp_path / 'out'}")
    found, given = tensors_of(tmp_path / "out"), weights(GOLDEN)
    assert found.keys() == given.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert (imported / "tokenizer.json").is_file() and (tmp_path / "out/tokenizer.json").read_text() == "{}"
    assert not list(imported.parent.glob("*.incomplete")) and not list(tmp_path.glob("*.incomplete"))


def test_a_large_model_is_written_as_several_files_with_an_index(imported, tmp_path):
    out = tmp_path / "out"
    succeed("export", imported, "--family=llama", f"--output_dir={out}", "--max_file_gb=0.000004", "--dtype=bfloat16")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3 and files == {path.name for path in out.glob("*.safetensors")}
    succeed("import", out, f"--output_dir={tmp_path / 'again'}")
    assert index["metadata"]["total_size"] == 2 * sum(value.size for value in weights(GOLDEN).values())


def test_a_run_begins_with_imported_parameters_and_a_larger_vocabulary(gin, imported, tmp_path):
    outcome = succeed("train", f"--gin_file={gin}", f"model_dir={tmp_path / 'run'}", "FromCheckpoint.resize=mean")
    said = " ".join(outcome.err.split())
    assert "embedding/table gets further rows" in said and "head/kernel gets further rows" in said
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["step"] == 0
    succeed("export", tmp_path / "run", "--family=llama", f"--output_dir={tmp_path / 'out'}")
    before, after = weights(GOLDEN), tensors_of(tmp_path / "out")
    assert after["model.embed_tokens.weight"].shape == (384, 24)
    # Two small steps away from where they were, and so are the new rows from the mean of the old ones.
    np.testing.assert_allclose(after["model.embed_tokens.weight"][:53], before["model.embed_tokens.weight"], atol=2e-3)
    mean = before["model.embed_tokens.weight"].mean(axis=0)
    np.testing.assert_allclose(after["model.embed_tokens.weight"][53:], np.tile(mean, (331, 1)), atol=2e-3)
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(after[name], before[name], atol=2e-3)


@pytest.mark.parametrize(
    "kind, model_type, name",
    [
        ("huggingface", "llama", "tokenizer.json"),
        ("sentencepiece", "llama", "tokenizer.model"),
        ("sentencepiece", "t5", "spiece.model"),
        ("byte", "t5", None),
    ],
)
def test_a_run_gives_the_tokenizer_of_its_data_the_name_that_transformers_looks_for(tmp_path, kind, model_type, name):
    (tmp_path / "task").mkdir()
    (tmp_path / "task/task.json").write_text(json.dumps({"vocabulary": {"kind": kind, "file": "tok"}}))
    expected = {name: tmp_path / "task/tok"} if name else {}
    assert tokenizer_files.of_data(tmp_path, model_type) == expected


@pytest.mark.parametrize(
    "override, message",
    [
        ("FromCheckpoint.resize=no", "embedding/table [384, 24] here, [53, 24] there"),
        ("FromCheckpoint.resize=some", "choose 'no' or 'mean'"),
        ("FromCheckpoint.folder=/nowhere", "holds no checkpoint"),
        ("FromCheckpoint.rename={'^stack/': 'stock/'}", "missing: stock/"),
        ("FromCheckpoint.fresh='('", "no regular expression"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_error_before_anything_is_written(gin, tmp_path, override, message):
    outcome = t5x_like("train", f"--gin_file={gin}", f"model_dir={tmp_path / 'run'}", override)
    assert outcome.code == 2 and message in outcome.err, outcome.err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_some_parameters_may_begin_by_chance(gin, tmp_path):
    override = "FromCheckpoint.fresh='^(embedding|head)/'"
    outcome = t5x_like("train", f"--gin_file={gin}", f"model_dir={tmp_path / 'run'}", override, "--dry_run")
    assert outcome.code == 0, outcome.err
    assert "2 begin by chance (embedding/table, head/kernel)" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("import", "nowhere", "--output_dir=x"), "no config.json"),
        (("export", "nowhere", "--output_dir=x", "--family=llama"), "neither config.gin nor model.gin"),
        (("export", "nowhere", "--output_dir=x", "--family=lama"), "nearest is 'llama'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path, monkeypatch):
    outcome = t5x_like(*(f"{a.split('=')[0]}={tmp_path / 'x'}" if a == "--output_dir=x" else a for a in arguments))
    assert outcome.code == 2 and message in outcome.err and not (tmp_path / "x").exists()


def test_nothing_is_written_over(source, tmp_path):
    outcome = t5x_like("import", source, f"--output_dir={tmp_path}")
    assert outcome.code == 2 and "exists: name a new folder" in outcome.err


def test_a_failed_import_leaves_nothing(source, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.json").write_text(json.dumps(GOLDEN["config"] | {"num_hidden_layers": 3}))
    safetensors.numpy.save_file(weights(GOLDEN), str(tmp_path / "bad/model.safetensors"))
    outcome = t5x_like("import", tmp_path / "bad", f"--output_dir={tmp_path / 'out'}")
    assert outcome.code == 2 and "9 missing: model.layers.2" in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"bad"}
