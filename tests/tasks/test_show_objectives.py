"""`tasks show --objective`: an example of every recipe, on one task with all features, entities from marked names."""

import io
import pathlib

import numpy as np
import pytest
import rich.console

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

import tensorflow as tf  # noqa: E402

from t5x_like.commands import recipes  # noqa: E402
from t5x_like.data.mentions import find_mentions  # noqa: E402
from t5x_like.data.ragged import Ragged  # noqa: E402
from t5x_like.tasks import show_in_place, vocabularies  # noqa: E402
from t5x_like.tasks.mention_text import mention_text  # noqa: E402
from t5x_like.tasks.show import show  # noqa: E402
from t5x_like.vocabularies.train import train_sentencepiece  # noqa: E402
from tests.test_all_objectives import MARKERS  # noqa: E402

RECIPES = sorted(path.stem for path in pathlib.Path("configs/objectives").glob("*.gin"))
NAMES = ["Alda", "Bero", "Cimu", "Dafo"]
PIECES = ["<cls>", "<sep>", "<mask>", "<mode:R>", "<mode:S>", "<mode:X>", *(f"<mark:{name}>" for name in MARKERS)]


def sentences(count=8):
    """(pieces, mentions, relations): one name likes another, again and again."""
    pieces, mentions, relations = [], [], []
    for k in range(count):
        head, tail = k % 4, (k + 1 + k // 4) % 4
        pieces += [NAMES[head], " likes ", NAMES[tail], f" for {k} days. "]
        mentions += [head + 1, 0, tail + 1, 0]
        relations += [0, 0, 1 + 7 * 65536 + head + 1, 0]
    return pieces, mentions, relations


@pytest.fixture(scope="module")
def feature(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    text = ["".join(sentences()[0])] * 4
    model = train_sentencepiece(text, output=folder / "char.model", kind="char", vocab_size=120, control_pieces=PIECES)
    return seqio.Feature(vocabularies.seqio_vocabulary(str(model), extra_ids=100), add_eos=True)


def source():
    pieces, mentions, relations = sentences()
    row = {"pieces": pieces, "mentions": mentions, "relations": relations}
    tensors = {name: tf.constant([values] * 3) for name, values in row.items()}
    return seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(tensors), splits=["train"]
    )


def more_features(dataset):
    """What single methods read, made of the tokens."""

    def one(example):
        ids = example["targets"]
        place = tf.range(tf.size(ids))
        return example | {
            "inputs": ids,
            "responses": place // 16 % 2,
            "similar": tf.where(place % 3 == 0, tf.roll(ids, 1, 0), 0),
            "segments": tf.cast(place % 4 == 0, tf.int32),
        }

    return dataset.map(one)


@pytest.fixture(scope="module")
def task(feature):
    seqio.TaskRegistry.add(
        "marked_names",
        source=source(),
        preprocessors=[mention_text, more_features, seqio.CacheDatasetPlaceholder()],
        output_features={"inputs": feature, "targets": feature},
    )
    yield "marked_names"
    seqio.TaskRegistry.remove("marked_names")


@pytest.mark.parametrize("name", RECIPES)
def test_an_example_of_every_recipe_shows_what_is_read_and_predicted_and_who_sees_whom(task, name):
    recipe = recipes.pipeline_of(name)
    output = io.StringIO()
    lengths = {side: min(length, 96) for side, length in recipe.lengths.items()}
    show(
        task, rich.console.Console(file=output, width=500), num_examples=1, lengths=lengths, objective=recipe.objective
    )
    labels = [line.split("  ")[0].split(" ")[0] for line in output.getvalue().splitlines()]
    assert "predicted" in labels and "sees" in labels, output.getvalue()
    assert {"seen", "reads", "predicted"} & set(labels)
    assert "\x1b" not in output.getvalue()


def test_an_unknown_recipe_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="nearest is 'bert'"):
        recipes.pipeline_of("brt")


def test_marked_names_are_mentions_at_their_tokens_and_facts_stand_at_tails(feature):
    dataset = mention_text(source().get_dataset("train", shuffle=False), {"targets": feature})
    row = next(dataset.as_numpy_iterator())
    found = find_mentions(Ragged(row["entities"], np.array([len(row["entities"])])))
    spans = [row["targets"][a : a + n].tolist() for a, n in zip(*found[:2], strict=True)]
    words = [feature.vocabulary.decode(span) for span in spans]
    pieces, mentions, relations = sentences()
    assert words == [piece for piece, number in zip(pieces, mentions, strict=True) if number]
    assert found.entity.tolist() == [number for number in mentions if number]
    tails = found.starts[np.flatnonzero([r > 0 for r, m in zip(relations, mentions, strict=True) if m])]
    assert np.flatnonzero(row["relations"]).tolist() == tails.tolist()
    assert row["relations"][tails].tolist() == [r for r in relations if r]


@pytest.mark.parametrize(
    "order, said",
    [
        ([0, 0, 0], "every token sees every other"),
        ([0, 1, 2], "every token sees itself and those before it"),
        ([2, 1, 0], "every token sees itself and those behind it"),
        ([0, 0, 0, 1, 2], "the first 3 see each other; each one behind them sees itself and all before it"),
        ([0, 1, 0, 1, 1], "by these orders: 0...1, 0, 1 x 2; a token sees those whose order is not above its own"),
    ],
)
def test_who_sees_whom_is_said_in_words(order, said):
    assert show_in_place.sees(np.array(order)) == said


def test_texts_that_do_not_see_each_other_are_counted():
    said = show_in_place.sees(np.zeros(5, int), np.array([0, 0, 1, 1, 1]))
    assert said == "every token sees every other; but 2 texts of 2, 3 tokens see themselves alone"
