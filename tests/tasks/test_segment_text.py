"""Words of Chinese from a segmenter, as a feature of a task that MaskedLM hides whole."""

import itertools

import numpy as np
import pytest

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

import tensorflow as tf  # noqa: E402

from t5x_like.data.examples import Context  # noqa: E402
from t5x_like.data.ragged import Documents, Ragged  # noqa: E402
from t5x_like.objectives.masked_lm import MaskedLM  # noqa: E402
from t5x_like.tasks import vocabularies  # noqa: E402
from t5x_like.tasks.segment_text import chinese_words, segment_text, segmented  # noqa: E402
from t5x_like.vocabularies.train import train_byte_bpe, train_sentencepiece  # noqa: E402

TEXT = "我们在北京大学读书,he reads books."


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabularies")
    texts = [TEXT, "他们在大学学习。"] * 30
    pieces = ["<cls>", "<sep>", "<mask>"]
    char = train_sentencepiece(texts, output=folder / "c.model", kind="char", vocab_size=99, control_pieces=pieces)
    bpe = train_sentencepiece(texts, output=folder / "b.model", kind="bpe", vocab_size=310, chinese_words=True)
    byte = train_byte_bpe(texts, output=folder / "t.json", vocab_size=262)
    made = {"char": char, "bpe": bpe, "byte_bpe": byte, "bytes": None}
    return {name: vocabularies.seqio_vocabulary(path and str(path), extra_ids=10) for name, path in made.items()}


def words_in(vocabulary, text, cut=chinese_words):
    """The tokens of each segment, decoded together."""
    ids, segments = segmented(vocabulary, text, cut)
    assert segments[0] == 1 and ids.tolist() == vocabulary.encode(text)
    bounds = np.flatnonzero(segments).tolist() + [len(ids)]
    return [vocabulary.decode(ids[a:b].tolist()) for a, b in itertools.pairwise(bounds)]


def test_characters_of_a_word_are_one_segment(features):
    found = words_in(features["char"], TEXT)
    assert found[:4] == ["我们", "在", "北京大学", "读书"] and "".join(found).replace("▁", " ") == TEXT


@pytest.mark.parametrize("name", ["bpe", "byte_bpe", "bytes"])
def test_pieces_and_bytes_go_with_the_word_in_which_they_begin(features, name):
    found = [word.strip() for word in words_in(features[name], "北京大学读书 he reads")]
    assert [word for word in found if word] == ["北京大学", "读书", "he", "reads"]


def test_all_pieces_of_a_word_behind_a_space_are_one_segment(features):
    vocabulary = features["bpe"]
    pieces = [vocabulary.tokenizer.id_to_piece(token) for token in vocabulary.encode("he booksreads")]
    assert len([piece for piece in pieces if piece != "▁"]) > 2 and any(len(p) > 1 and p[0] == "▁" for p in pieces)
    assert [word.strip() for word in words_in(vocabulary, "he booksreads")][-1] == "booksreads"


def test_a_segmenter_may_only_cut(features):
    with pytest.raises(ValueError, match="it may only cut it"):
        segmented(features["char"], "ab", lambda text: ["a"])


def test_words_of_the_feature_are_hidden_whole(features):
    vocabulary = features["char"]
    feature = {"targets": seqio.Feature(vocabulary)}
    dataset = tf.data.Dataset.from_tensor_slices({"targets": [TEXT] * 40})
    rows = list(segment_text(dataset, feature).as_numpy_iterator())
    lengths = np.array([len(row["targets"]) for row in rows])
    joined = {name: Ragged(np.concatenate([row[name] for row in rows]), lengths) for name in ("targets", "segments")}
    special = vocabularies.special_tokens(vocabulary)
    context = Context({"targets": 64}, special, vocabulary.vocab_size)
    side = MaskedLM(units="segments").examples(
        np.random.default_rng(0), Documents(joined, np.ones(len(rows), bool)), context
    )
    predicted = side.loss_weights.reshape(len(rows), -1)[:, 1:-1] > 0  # without [CLS] and [SEP]
    word = np.cumsum(rows[0]["segments"])
    assert 0 < predicted.mean() < 0.3
    for row in predicted:
        assert all(row[word == number].all() or not row[word == number].any() for number in set(word))
