"""Steps of several batches: which rows they hold, what they cost, and that nothing else changes."""

import functools
import itertools
import json

import jax
import numpy as np
import pytest

from t5x_like.objectives.table import OBJECTIVES
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train.batch_ramp import BatchRamp, interleaved, linear_ramp
from tests.train import tiny

ONE_DEVICE = functools.partial(make_mesh, data=1, devices=jax.devices()[:1])
RAMP = BatchRamp(((0, 1), (2, 3)))
STEPS = 4


@pytest.mark.parametrize(("first", "increment", "last", "over"), [(1, 1, 8, 100), (2, 3, 14, 77), (1, 5, 21, 3)])
def test_a_linear_ramp_has_the_sizes_of_megatron(first, increment, last, over):
    """Megatron-LM: the size follows from the samples before the step, each size for an equal share of `over`."""
    ramp = linear_ramp(first=first, increment=increment, last=last, over=over)
    taken, each = 0, over / ((last - first) // increment)
    for step in range(60):
        expected = last if taken > over else first + int(taken / each) * increment
        assert ramp.batches(step) == min(expected, last) and ramp.batches_before(step) == taken
        taken += expected
    assert ramp.largest(60) == last and ramp.largest(0) == ramp.batches(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchRamp(((1, 2),)), "steps must begin with 0 and ascend"),
        (lambda: BatchRamp(((0, 1), (5, 2), (5, 3))), "steps must begin with 0 and ascend"),
        (lambda: BatchRamp(((0, 0),)), "a step takes 1 batch or more"),
        (lambda: linear_ramp(last=4, increment=2, over=10), "last must be above first by a multiple of increment"),
        (lambda: linear_ramp(last=1, over=10), "last must be above first"),
        (lambda: linear_ramp(last=2, over=0), "it takes 1 or more"),
    ],
)
def test_what_is_no_ramp_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared")
    tiny.write_data(path)
    return path


def test_a_step_takes_the_next_batches_and_its_micro_batches_are_theirs(directory):
    batches = list(itertools.islice(iter(tiny.pipeline(directory).train_rows(OBJECTIVES)), 3))
    rows = interleaved(batches)
    of_first_host = interleaved([jax.tree.map(lambda x: x[:4], batch) for batch in batches])
    for whole, first, *parts in zip(*map(jax.tree.leaves, (rows, of_first_host, *batches)), strict=True):
        np.testing.assert_array_equal(whole[: 3 * 4], first)
        for number, part in enumerate(parts):
            np.testing.assert_array_equal(whole[number::3], part)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]


@pytest.fixture(scope="module")
def reference(directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    tiny.run(folder, tiny.pipeline(directory), STEPS, mesh=ONE_DEVICE, batch_ramp=RAMP, eval_every=STEPS)
    return metrics(folder)


def test_rows_are_counted_and_larger_batches_hold_more_tokens(reference):
    assert [row["rows"] for row in reference] == [8, 16, 40, 64]
    tokens = [row["loss_weight"] for row in reference]
    assert 2 * max(tokens[:2]) < min(tokens[2:])


def test_a_ramp_that_is_stopped_on_its_way_goes_on_bit_for_bit(directory, reference, tmp_path):
    for steps in (3, STEPS):
        tiny.run(tmp_path, tiny.pipeline(directory), steps, mesh=ONE_DEVICE, batch_ramp=RAMP, eval_every=STEPS)
    dropped = [{name: value for name, value in row.items() if "eval/" not in name} for row in metrics(tmp_path)]
    assert dropped == [{name: value for name, value in row.items() if "eval/" not in name} for row in reference]


def test_four_devices_and_micro_batches_have_the_losses_of_one(directory, reference, tmp_path):
    mesh = functools.partial(make_mesh, data=2, fsdp=2, devices=jax.devices()[:4])
    more = {"mesh": mesh, "batch_ramp": RAMP, "num_microbatches": 2, "eval_every": STEPS}
    tiny.run(tmp_path, tiny.pipeline(directory), STEPS, **more)
    for name in ("loss", "grad_norm", "loss_weight"):
        expected = [row[name] for row in reference]
        np.testing.assert_allclose([row[name] for row in metrics(tmp_path)], expected, rtol=1e-4)


def test_two_batches_a_step_are_a_batch_of_twice_the_rows(directory, tmp_path):
    """The streams are the same ones, so both runs read the same rows; only sums come in another order."""
    found = []
    for folder, size, batches in (("two", 8, 2), ("one", 16, 1)):
        data = tiny.pipeline(directory, batch_size=size, num_streams=8)
        ramp = BatchRamp(((0, batches),))
        tiny.run(tmp_path / folder, data, 3, mesh=ONE_DEVICE, batch_ramp=ramp, eval_every=3)
        found.append([(row["loss"], row["loss_weight"], row["rows"]) for row in metrics(tmp_path / folder)])
    np.testing.assert_allclose(*found, rtol=1e-5)
