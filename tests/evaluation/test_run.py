"""Evaluation against the same numbers computed by hand, on a run that was trained for three steps."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like import losses
from t5x_like.evaluation import load, unigram
from t5x_like.evaluation import run as evaluation
from t5x_like.evaluation.load import Run
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.partitioning.mesh import make_mesh
from tests.train import tiny


def one_device():
    return make_mesh(data=1, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    place = tmp_path_factory.mktemp("evaluation")
    tiny.write_data(place)
    data = tiny.pipeline(place)
    tiny.run(place / "run", data, 3, mesh=one_device, save_every=1, eval_every=3)
    return Run(place / "run", {"model": tiny.MODEL, "data": data, "steps": 3, "mesh": one_device})


def held_out(run: Run):
    task = next(task for task, _ in run.data.tasks() if task.name == "prefixes")
    return list(run.data.held_out_rows(task, "validation", OBJECTIVES)), task.vocabulary.size


def test_the_loss_is_that_of_a_direct_pass_over_the_same_rows(run):
    (result,) = evaluation.evaluate(run, steps=[3], num_samples=0)
    batches, _ = held_out(run)
    model = load.load(run, 3, load.one_device()).model()
    forward = jax.jit(lambda batch: model(batch))
    terms = [(losses.token_cross_entropy(forward(b), jnp.asarray(b.targets)) * b.loss_weights).sum() for b in batches]
    weight = sum(b.loss_weights.sum() for b in batches)
    values = result["tasks"]["prefixes"]
    assert values["loss"] == pytest.approx(float(sum(terms)) / float(weight), rel=1e-5)
    assert values["tokens"] == weight and values["perplexity"] == pytest.approx(np.exp(values["loss"]))
    assert json.loads((run.folder / "evaluation" / "00000003.json").read_text()) == result


@pytest.mark.parametrize("max_batches", [None, 1])
def test_the_unigram_loss_is_that_of_counted_targets_over_the_rows_that_were_measured(run, max_batches):
    (result,) = evaluation.evaluate(run, steps=[3], num_samples=0, max_batches=max_batches)
    batches, size = held_out(run)
    alone = tiny.pipeline(run.data.directory, mixture="prefixes").train_rows(OBJECTIVES)
    counts = np.ones(size)  # Laplace
    for _, batch in zip(range(evaluation.UNIGRAM_BATCHES), alone, strict=False):
        for token in batch.targets[batch.loss_weights > 0]:
            counts[token] += 1
    targets = np.concatenate([b.targets[b.loss_weights > 0] for b in batches[:max_batches]])
    by_hand = -np.log(counts / counts.sum())[targets].mean()
    assert result["tasks"]["prefixes"]["unigram_loss"] == pytest.approx(by_hand, rel=1e-9)


def test_a_uniform_yardstick_is_the_logarithm_of_the_vocabulary():
    assert unigram.unigram_loss(np.zeros(8, int), np.arange(8)) == pytest.approx(np.log(8))


def test_the_mesh_changes_no_number(run):
    (one,) = evaluation.evaluate(run, steps=[3], num_samples=0)
    (eight,) = evaluation.evaluate(
        run._replace(arguments={**run.arguments, "mesh": make_mesh}), steps=[3], num_samples=0
    )
    assert one["tasks"]["prefixes"]["loss"] == pytest.approx(eight["tasks"]["prefixes"]["loss"], rel=1e-5)


def test_samples_are_the_first_held_out_examples_with_what_the_model_makes_of_them(run):
    evaluation.evaluate(run, steps=[2, 3], num_samples=3)
    rows = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert [(row["task"], row["step"]) for row in rows] == [("prefixes", 3)] * 3
    assert all(row.keys() == {"task", "step", "input", "truth", "model"} for row in rows)
    batch = held_out(run)[0][0]
    vocabulary = run.data.tasks()[1][0].vocabulary
    assert rows[0]["truth"] == vocabulary.decode(batch.targets[0][batch.segment_ids[0] == 1].tolist())


def test_nothing_can_be_told_where_no_task_has_the_split(run):
    with pytest.raises(ValueError, match=r"no task of mixture has a split 'test': they have \{"):
        evaluation.evaluate(run, steps=[3], split="test")


def test_a_watcher_sees_each_sound_step_once_and_ends_with_the_last(run):
    assert list(evaluation.watch(run, done_step=3)) == [1, 2, 3]
    assert run.choose("all") == [1, 2, 3] and run.choose("latest") == [3] and run.choose("2") == [2]


def test_what_predicts_in_place_is_measured_and_shown_filled_in(tmp_path):
    """An encoder on masked tokens: the metrics of its loss, and at each hidden place the truth and the model's best."""
    data, model = tiny.masked(tmp_path)
    tiny.run(tmp_path / "run", data, 2, model=model, mesh=one_device, save_every=2, eval_every=2)
    run = Run(tmp_path / "run", {"model": model, "data": data, "steps": 2, "mesh": one_device})
    (result,) = evaluation.evaluate(run, steps=[2], num_samples=3)
    (values,) = result["tasks"].values()
    assert 0 <= values["accuracy"] <= 1 and values["tokens"] > 0 and "bits_per_byte" not in values
    samples = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 3
    assert all(len(sample["truth"]) > 0 and len(sample["model"]) > 0 for sample in samples)
