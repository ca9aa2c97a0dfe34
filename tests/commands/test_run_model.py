"""A run's model as a score of documents: what `t5x_like score` says, and less surprise at what it was trained on."""

import json
import random

import numpy as np
import pytest

from t5x_like.commands.run_model import RunModel
from tests.commands.command_line import succeed, t5x_like
from tests.commands.conftest import WORDS

TEXTS = ["the cat sat on", "a mat", " \n", "é big"]


@pytest.fixture(scope="module")
def learned(place, decoder_gin):
    """A decoder of 80 steps on lines of WORDS."""
    told = ["train.steps=80", "train.save_every=80", "train.eval_every=80", "warmup_cosine.total_steps=80"]
    succeed("train", f"--gin_file={decoder_gin}", f"model_dir={place / 'learned'}", *told, "warmup_cosine.peak=0.03")
    return place / "learned"


def test_a_score_is_that_of_the_command_and_a_text_without_words_has_none(learned, tmp_path):
    rows = [json.dumps({"inputs": "", "targets": text}) for text in TEXTS if text.strip()]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    said = [json.loads(line) for line in succeed("score", learned, "--input", tmp_path / "rows.jsonl").out.splitlines()]
    by_token, by_byte = (RunModel(run=str(learned), per=per).scores(TEXTS) for per in ("token", "byte"))
    assert np.isnan(by_token[2]) and np.isnan(by_byte[2])
    measured = [0, 1, 3]
    np.testing.assert_allclose(by_token[measured], [-row["log_likelihood"] / row["tokens"] for row in said], rtol=1e-6)
    sizes = [len(row["targets"].encode()) for row in said]
    np.testing.assert_allclose(
        by_byte[measured], [-row["log_likelihood"] / size for row, size in zip(said, sizes, strict=True)], rtol=1e-6
    )
    only = RunModel(run=str(learned), characters=5).scores([TEXTS[0]])
    np.testing.assert_allclose(only, RunModel(run=str(learned)).scores([TEXTS[0][:5]]), rtol=1e-6)


def test_text_like_that_of_its_training_surprises_less_than_the_same_letters_shuffled(learned):
    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=12))[:48] for _ in range(24)]
    shuffled = ["".join(rng.sample(text, len(text))) for text in texts]
    as_it_is, mixed = (RunModel(run=str(learned)).scores(some) for some in (texts, shuffled))
    assert (as_it_is < mixed).mean() > 0.9


def test_from_a_recipe_the_score_travels_into_the_shards(learned, tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    (tmp_path / "recipe.gin").write_text(
        "curate.sources = [@Source()]\nSource.name = 'a'\nSource.reader = @JsonLines()\ncurate.steps = [@Score()]\n"
        f"Score.name = 'surprise'\nScore.model = @RunModel()\nRunModel.run = '{learned}'\ncurate.shards = 1\n"
    )
    told = [f"--gin_file={tmp_path}/recipe.gin", f"JsonLines.paths=['{tmp_path}/texts.jsonl']"]
    succeed("curate", *told, f"output_dir={tmp_path}/out")
    tally = json.loads((tmp_path / "out" / "tally.json").read_text())
    assert sum(count for count, _ in tally["scores"]["surprise"][""].values()) == 3
    refused = t5x_like("curate", *told, f"output_dir={tmp_path}/other", f"RunModel.run={tmp_path}")
    assert refused.code == 2 and "is not a run folder" in refused.err


@pytest.mark.parametrize(
    ("wrong", "message"), [({"per": "word"}, "choose one of token, byte"), ({"characters": 0}, "at least 1")]
)
def test_what_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        RunModel(run="x", **wrong)
