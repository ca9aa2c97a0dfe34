import functools

import pytest

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

from t5x_like.objectives.causal_lm import CausalLM  # noqa: E402
from t5x_like.objectives.span_corruption import SpanCorruption  # noqa: E402
from t5x_like.objectives.supervised import Supervised  # noqa: E402
from t5x_like.tasks.cache_point import cut, describe_step, step_name  # noqa: E402

CACHE = seqio.CacheDatasetPlaceholder()
TOKENIZE = seqio.preprocessors.tokenize
FEATURES = {name: seqio.Feature(seqio.ByteVocabulary()) for name in ("inputs", "targets")}


def make(steps, features=FEATURES):
    source = seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None, splits=["train"])
    return seqio.Task("cut_task", source=source, preprocessors=steps, output_features=features)


@seqio.map_over_dataset(num_seeds=1)
def random_step(example, seed):
    return example


def plain_step(dataset):
    return dataset


def length_step(dataset, sequence_length):
    return dataset


@pytest.mark.parametrize(
    ("steps", "offline", "objective"),
    [
        ([TOKENIZE, CACHE, SpanCorruption()], ["tokenize"], SpanCorruption()),
        ([TOKENIZE, CACHE, seqio.preprocessors.append_eos_after_trim], ["tokenize"], Supervised(append_eos=True)),
        ([TOKENIZE, CACHE, seqio.preprocessors.append_eos], ["tokenize", "append_eos"], Supervised(append_eos=False)),
        ([TOKENIZE, CACHE, plain_step], ["tokenize", "plain_step"], Supervised(append_eos=False)),
        ([TOKENIZE, CACHE, plain_step, CausalLM()], ["tokenize", "plain_step"], CausalLM()),
        ([TOKENIZE, CausalLM()], ["tokenize"], CausalLM()),
        ([TOKENIZE, CACHE], ["tokenize"], Supervised(append_eos=False)),
    ],
)
def test_a_task_is_cut_into_what_runs_once_and_an_objective(steps, offline, objective):
    where = cut(make(steps))
    assert [step_name(step) for step in where.offline.preprocessors[:-1]] == offline
    assert where.objective == objective


def test_a_foreign_step_behind_the_cache_point_is_said():
    assert cut(make([TOKENIZE, CACHE, plain_step])).notes == [
        "runs plain_step once, in prepare, though it stands after the CacheDatasetPlaceholder"
    ]
    assert cut(make([TOKENIZE, CACHE, SpanCorruption()])).notes == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([TOKENIZE, CACHE, random_step], "random_step depends on seed"),
        ([TOKENIZE, CACHE, length_step], "length_step depends on sequence_length"),
        ([TOKENIZE, CACHE, functools.partial(length_step)], "length_step depends on sequence_length"),
        (
            [TOKENIZE, CACHE, SpanCorruption(), plain_step],
            "plain_step stands after SpanCorruption, which must be the last",
        ),
    ],
)
def test_what_would_differ_between_epochs_or_rows_is_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        cut(make(steps))


def test_features_that_cannot_be_trained_on_are_refused():
    only_targets = {"targets": FEATURES["targets"]}
    with pytest.raises(ValueError, match="end its preprocessors with an objective"):
        cut(make([TOKENIZE], only_targets))
    nested = FEATURES | {"targets": seqio.Feature(seqio.ByteVocabulary(), rank=2)}
    with pytest.raises(ValueError, match="targets has rank 2"):
        cut(make([TOKENIZE, CACHE, SpanCorruption()], nested))
    mixed = FEATURES | {"inputs": seqio.Feature(seqio.ByteVocabulary(), add_eos=False)}
    with pytest.raises(ValueError, match="add_eos is"):
        cut(make([TOKENIZE, CACHE, seqio.preprocessors.append_eos_after_trim], mixed))


def test_a_step_is_described_by_its_source_and_its_arguments():
    rekey = seqio.preprocessors.rekey
    one, two = (functools.partial(rekey, key_map={"targets": name}) for name in ("a", "b"))
    assert describe_step(one) == describe_step(functools.partial(rekey, key_map={"targets": "a"})) != describe_step(two)
    assert describe_step(plain_step) != describe_step(length_step)
