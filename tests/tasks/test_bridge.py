"""A SeqIO user's `get_dataset` on a task of ours shows what the native objective makes."""

import functools

import numpy as np
import pytest

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

import tensorflow as tf  # noqa: E402

from t5x_like.data import prepared  # noqa: E402
from t5x_like.objectives.causal_lm import CausalLM  # noqa: E402
from t5x_like.objectives.instruction_lm import InstructionLM  # noqa: E402
from t5x_like.objectives.masked_lm import MaskedLM  # noqa: E402
from t5x_like.objectives.prefix_lm import PrefixLM  # noqa: E402
from t5x_like.objectives.span_corruption import SpanCorruption  # noqa: E402
from t5x_like.objectives.supervised import Supervised  # noqa: E402
from t5x_like.tasks import preview, readers, sources  # noqa: E402
from t5x_like.tasks.instruction_text import instruction_text  # noqa: E402
from t5x_like.tasks.prepare import prepare  # noqa: E402

VOCABULARY = seqio.ByteVocabulary(100)
EOS = 1


@pytest.fixture
def task(tmp_path):
    """Makes a task over numbered lines, unregistered."""
    (tmp_path / "a.txt").write_text("".join(f"line {k} of the text, {k * k} in all\n" for k in range(300)))

    def make(objective, features=("inputs", "targets"), key_map=None):
        return seqio.Task(
            "bridged",
            source=sources.Corpus(readers.TextFiles([f"{tmp_path}/a.txt"], per="line")),
            preprocessors=[
                functools.partial(seqio.preprocessors.rekey, key_map=key_map or {"targets": "text"}),
                seqio.preprocessors.tokenize,
                seqio.CacheDatasetPlaceholder(),
                objective,
            ],
            output_features={name: seqio.Feature(VOCABULARY) for name in features},
        )

    return make


def rows(task, lengths, seed=0):
    dataset = task.get_dataset(lengths, "train", shuffle=False, seed=seed)
    types = {name: spec.dtype.name for name, spec in dataset.element_spec.items()}
    assert types == {name: "float32" if name == "loss_weights" else "int32" for name in types}
    return list(dataset.as_numpy_iterator())


def restore(row):
    """Puts each hidden span back in place of its sentinel."""
    sentinels, hidden, current = range(259, 359), {}, None
    for token in row["targets"][:-1].tolist():
        if token in sentinels:
            current = hidden[token] = []
        else:
            current.append(token)
    return [t for token in row["inputs"][:-1].tolist() for t in hidden.get(token, [token])]


def text_ids(tmp_path):
    return VOCABULARY.encode((tmp_path / "a.txt").read_text().replace("\n", ""))


def test_span_corruption_gives_golden_lengths_and_the_documents_back(task, tmp_path):
    made = rows(task(SpanCorruption()), {"inputs": 512, "targets": 114})
    full = [row for row in made if len(row["inputs"]) == 512]
    assert len(full) >= 10 and {len(row["targets"]) for row in full} == {114}
    assert all(row["inputs"][-1] == row["targets"][-1] == EOS for row in made)
    assert [token for row in made for token in restore(row)] == text_ids(tmp_path)
    first = full[0]["targets"]
    assert first[first >= 259].tolist() == list(range(358, 358 - 28, -1))


def test_the_same_kind_of_examples_as_the_native_objective(task):
    lengths = {"inputs": 128, "targets": 64}
    bridged = rows(task(SpanCorruption()), lengths)
    native = preview.examples(preview.read(task(SpanCorruption()), "train", num_documents=128), lengths)
    num_native = len(native.targets.lengths)
    assert [len(row["inputs"]) for row in bridged[: num_native - 1]] == native.inputs.lengths[:-1].tolist()
    assert [len(row["targets"]) for row in bridged[: num_native - 1]] == native.targets.lengths[:-1].tolist()


def test_draws_follow_the_seed_and_change_with_the_epoch(task):
    lengths = {"inputs": 128, "targets": 64}
    one, same, other = (rows(task(SpanCorruption()), lengths, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a["inputs"], b["inputs"]) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a["inputs"], b["inputs"]) for a, b in zip(one, other, strict=True))
    dataset = task(SpanCorruption()).get_dataset(lengths, "train", shuffle=False, seed=1, num_epochs=2)
    twice = [tuple(row["targets"].tolist()) for row in dataset.as_numpy_iterator()]
    assert len(set(twice)) > 1.8 * len(one)


def test_prefix_lm_gives_both_sides_of_each_document(task, tmp_path):
    made = rows(task(PrefixLM()), {"inputs": 64, "targets": 64})
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert [VOCABULARY.decode(np.concatenate([r["inputs"][:-1], r["targets"][:-1]])) for r in made] == lines


def test_causal_lm_has_targets_alone(task, tmp_path):
    made = rows(task(CausalLM(), features=("targets",)), {"targets": 64})
    assert {tuple(row) for row in made} == {("targets",)}
    assert [t for row in made for t in row["targets"].tolist() if t != EOS] == text_ids(tmp_path)


def test_what_predicts_in_place_has_inputs_targets_and_weights_of_one_length(task, tmp_path):
    made = rows(task(MaskedLM(), features=("targets",)), {"targets": 64})
    assert {tuple(sorted(row)) for row in made} == {("inputs", "loss_weights", "targets")}
    assert all(len(row["inputs"]) == len(row["targets"]) == len(row["loss_weights"]) <= 64 for row in made)
    changed = np.concatenate([row["inputs"] != row["targets"] for row in made])
    weights = np.concatenate([row["loss_weights"] for row in made])
    assert weights.dtype == np.float32 and (weights[changed] == 1).all() and 0.1 < weights.mean() < 0.2
    assert [t for row in made for t in row["targets"][1:-1].tolist()] == text_ids(tmp_path)


def test_supervised_cuts_to_length_and_ends_with_eos(task):
    pairs = task(Supervised(), key_map={"inputs": "text", "targets": "text"})
    made = rows(pairs, {"inputs": 8, "targets": 5})
    assert {(len(row["inputs"]), len(row["targets"]), row["targets"][-1]) for row in made} == {(8, 5, EOS)}


def test_what_an_objective_cannot_do_is_said_before_the_first_example(task):
    with pytest.raises(ValueError, match="give sequence_length"):
        task(SpanCorruption()).get_dataset(None, "train")
    with pytest.raises(ValueError, match="sentinels"):
        task(SpanCorruption(noise_density=0.5)).get_dataset({"inputs": 512, "targets": 512}, "train")
    with pytest.raises(ValueError, match=r"Supervised reads \['inputs'\]"):
        task(Supervised()).get_dataset({"inputs": 64, "targets": 64}, "train")


def test_a_seqio_shard_is_a_part_of_the_documents(task, tmp_path):
    lengths, found = {"targets": 512}, []
    for index in range(4):
        shard = seqio.ShardInfo(index, 4)
        part = task(CausalLM(), features=("targets",)).get_dataset(lengths, "train", shuffle=False, shard_info=shard)
        found += [VOCABULARY.decode(row["targets"]) for row in part.as_numpy_iterator()]
    assert sorted(found) == sorted((tmp_path / "a.txt").read_text().splitlines())


def test_texts_with_their_pairs_become_instructions_and_prepare_keeps_both_features(tmp_path):
    """What has a loss is the answers alone, each with the EOS behind the last one."""
    rows_of_source = [
        {"text": f"The {k}th text.", "questions": [f"Which is it, {k}?", "Is it long?"], "answers": [f"no {k}", "No."]}
        for k in range(12)
    ]

    def read(split, shuffle_files, seed=None):
        types = {"text": tf.TensorSpec([], tf.string)}
        types |= {name: tf.TensorSpec([None], tf.string) for name in ("questions", "answers")}
        return tf.data.Dataset.from_generator(lambda: iter(rows_of_source), output_signature=types)

    task = seqio.TaskRegistry.add(
        "instructed",
        source=seqio.FunctionDataSource(read, splits=["train"]),
        preprocessors=[
            instruction_text,
            seqio.CacheDatasetPlaceholder(),
            InstructionLM(loss_on="response"),
        ],
        output_features={"targets": seqio.Feature(VOCABULARY)},
    )
    try:
        made = rows(task, {"targets": 400})
        assert len(made) == 12
        for row, known in zip(made, rows_of_source, strict=True):
            answers = VOCABULARY.decode(row["targets"][row["loss_weights"] > 0][:-1].tolist())
            assert answers == "".join(known["answers"])
            whole = VOCABULARY.decode(row["targets"][:-1].tolist())
            assert whole.startswith(known["text"]) and whole.endswith("No.") and known["questions"][0] in whole
        (folder,) = prepare("instructed", output_dir=tmp_path)
        kept = prepared.open_task(folder).manifest["features"]
        assert sorted(kept) == ["responses", "targets"]
    finally:
        seqio.TaskRegistry.remove("instructed")
