"""Language and task tags before texts, in SeqIO tasks that are prepared and read."""

import functools
import json

import numpy as np
import pytest

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

import tensorflow as tf  # noqa: E402

from t5x_like.data.pipeline import Pipeline  # noqa: E402
from t5x_like.objectives.prefix_lm import PrefixLM  # noqa: E402
from t5x_like.objectives.table import OBJECTIVES  # noqa: E402
from t5x_like.tasks import held_out, readers, tags, vocabularies  # noqa: E402
from t5x_like.tasks.prepare import prepare  # noqa: E402
from t5x_like.tasks.sources import Corpus  # noqa: E402
from t5x_like.vocabularies.train import train_sentencepiece  # noqa: E402

PIECES = ["<lang:de>", "<lang:en>", "<mark:news>", "<mode:R>"]
TEXTS = [("guten morgen", "de"), ("good morning", "en"), ("gute nacht", "de")]


@pytest.fixture(scope="module")
def feature(tmp_path_factory):
    model = tmp_path_factory.mktemp("vocabulary") / "char.model"
    train_sentencepiece([text for text, _ in TEXTS], output=model, kind="char", vocab_size=80, control_pieces=PIECES)
    return seqio.Feature(vocabularies.seqio_vocabulary(str(model), extra_ids=10), add_eos=True)


def dataset_of(feature, texts=TEXTS):
    vocabulary = feature.vocabulary
    rows = [{"targets": np.array(vocabulary.encode(text), np.int32), "language": code} for text, code in texts]
    signature = {"targets": tf.TensorSpec([None], tf.int32), "language": tf.TensorSpec([], tf.string)}
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)


def made(dataset):
    return [row["targets"].tolist() for row in dataset.as_numpy_iterator()]


def test_tags_stand_before_every_text_in_their_order(feature):
    ids = tags.tags_of(feature.vocabulary)
    assert set(ids) == {"lang:de", "lang:en", "mark:news", "mode:R"} and len(set(ids.values())) == 4
    found = made(tags.add_tags(dataset_of(feature), {"targets": feature}, tags=("mode:R", "mark:news")))
    plain = [feature.vocabulary.encode(text) for text, _ in TEXTS]
    assert found == [[ids["mode:R"], ids["mark:news"], *tokens] for tokens in plain]


def test_each_text_gets_the_tag_of_its_own_language(feature):
    ids = tags.tags_of(feature.vocabulary)
    found = made(tags.add_language_tag(dataset_of(feature), {"targets": feature}))
    expected = [[ids[f"lang:{code}"], *feature.vocabulary.encode(text)] for text, code in TEXTS]
    assert found == expected


def test_no_text_writes_a_tag(feature):
    ids = set(tags.tags_of(feature.vocabulary).values())
    assert not ids & set(feature.vocabulary.encode("<lang:de> guten <mark:news> <mode:R>"))


def test_a_tag_that_is_not_there_is_named_with_the_nearest(feature):
    with pytest.raises(ValueError, match=r"no tag 'lang:dd'.*nearest is 'lang:de': train the tokenizer with"):
        tags.add_tags(dataset_of(feature), {"targets": feature}, tags=("lang:dd",))
    with pytest.raises(tf.errors.InvalidArgumentError, match="it has de, en; language:"):
        made(tags.add_language_tag(dataset_of(feature, [("bonjour", "fr")]), {"targets": feature}))
    bytes_alone = seqio.Feature(seqio.ByteVocabulary())
    with pytest.raises(ValueError, match="no tag 'lang:CODE'"):
        tags.add_language_tag(dataset_of(feature), {"targets": bytes_alone})


def test_a_tag_takes_a_place_of_the_row_and_is_read_by_the_objective(feature, tmp_path):

    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": t, "language": c}) for t, c in TEXTS * 20))
    name = "tagged_test_prefix_lm"
    if name not in seqio.TaskRegistry.names():
        seqio.TaskRegistry.add(
            name,
            source=Corpus(
                readers.JsonLines([str(tmp_path / "texts.jsonl")], fields=("text", "language")),
                hold_out=held_out.ByDocument(0.1),
            ),
            preprocessors=[
                functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text", "language": "language"}),
                functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
                tags.add_language_tag,
                seqio.CacheDatasetPlaceholder(),
                PrefixLM(),
            ],
            output_features={"inputs": feature, "targets": feature},
        )
    prepare(name, output_dir=str(tmp_path / "data"))
    data = Pipeline(directory=str(tmp_path / "data"), mixture=name, lengths={"inputs": 16, "targets": 16}, batch_size=4)
    batch = next(iter(data.train_rows(OBJECTIVES)))
    ids = tags.tags_of(feature.vocabulary)
    first = batch.encoder.tokens[batch.encoder.positions[..., 0] == 0]
    seen = first[batch.encoder.segment_ids[batch.encoder.positions[..., 0] == 0] > 0]
    assert set(seen.tolist()) <= {ids["lang:de"], ids["lang:en"]} and len(seen)
