"""Every registered task can be cut, corrupted and read back; a new task file is tested by being registered."""

import pytest

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

import data_tasks  # noqa: E402
from t5x_like.data import ragged  # noqa: E402
from t5x_like.data.examples import Side  # noqa: E402
from t5x_like.tasks import preview, registry  # noqa: E402
from t5x_like.tasks.check import check  # noqa: E402

NAMES = sorted(name for name in seqio.TaskRegistry.names() if name.startswith("python_stdlib"))
MIXTURES = sorted(name for name in seqio.MixtureRegistry.names() if name.startswith("python_stdlib"))


def test_every_module_of_the_list_is_documented():
    assert NAMES and MIXTURES
    assert all(module.__doc__ for module in data_tasks.MODULES)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_fit_to_train_on(name):
    (report,) = check(name, num_documents=20)
    assert report.problems == []


@pytest.mark.parametrize("name", NAMES)
def test_examples_fit_their_rows_and_end_in_both_splits(name):
    task = registry.find(name)
    lengths = preview.default_lengths(task)
    for split in ("train", "validation"):
        made = preview.examples(preview.read(task, split, num_documents=5), lengths)
        if isinstance(made, Side):
            assert 0 < made.lengths.max() <= lengths["targets"]
            continue
        for side, length in ((made.inputs, lengths.get("inputs")), (made.targets, lengths["targets"])):
            if side is not None:
                assert 0 < max(map(len, ragged.to_list(side))) <= length


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_gives_what_its_tasks_give(name):
    mixture = registry.find(name)
    dataset = mixture.get_dataset({"inputs": 64, "targets": 64}, "train", shuffle=False, seed=0)
    row = next(iter(dataset.as_numpy_iterator()))
    assert set(row) == set(mixture.output_features) and row["targets"][-1] == 1
