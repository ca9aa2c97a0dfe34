import pytest

from t5x_like.vocabularies import load
from t5x_like.vocabularies.train import train_byte_bpe, train_sentencepiece

seqio = pytest.importorskip("seqio", reason="the `tasks` extra (SeqIO and TensorFlow) is not installed")
pytestmark = pytest.mark.tasks

from t5x_like.tasks import vocabularies  # noqa: E402

TEXTS = [f"Line {k} of a text about {k * 7} things.\n\n  indented {k}" for k in range(300)]
SAMPLES = ["for item in items:\n    pass\n", "", "naïve 日本語", "see <extra_id_0> and <extra_id_7> here"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabularies")
    train_sentencepiece(TEXTS, output=folder / "a.model", kind="unigram", vocab_size=400)
    train_byte_bpe(TEXTS, output=folder / "a.json", vocab_size=400)
    return folder


@pytest.mark.parametrize("file", ["a.model", "a.json", None])
def test_the_runtime_vocabulary_encodes_as_seqio_does(folder, file):
    theirs = vocabularies.seqio_vocabulary(file and folder / file, extra_ids=100)
    spec, path = vocabularies.vocabulary_spec(theirs)
    ours = load.open_vocabulary(spec, folder)
    assert (ours.size, ours.special.eos, ours.special.pad) == (theirs.vocab_size, theirs.eos_id, theirs.pad_id)
    assert path is None or path.name == spec["file"]
    for text in SAMPLES:
        ids = theirs.encode_tf(text).numpy().tolist()
        assert ids == ours.encode(text) == list(theirs.encode(text))
        assert ours.decode(ids) == theirs.decode(ids)
        if ids:
            assert theirs.decode_tf(theirs.encode_tf(text)).numpy().decode() == ours.decode(ids)


def test_a_vocabulary_that_cannot_be_stored_is_refused():
    with pytest.raises(ValueError, match="PassThroughVocabulary cannot be stored: use"):
        vocabularies.vocabulary_spec(seqio.PassThroughVocabulary(size=10))


def test_sentencepiece_with_overrides_is_refused(folder):
    vocabulary = seqio.SentencePieceVocabulary(str(folder / "a.model"), 10, reverse_extra_ids=False)
    with pytest.raises(ValueError, match="ascending order are not supported"):
        vocabularies.vocabulary_spec(vocabulary)


def test_two_vocabularies_in_one_task_are_refused():
    features = {"inputs": seqio.Feature(seqio.ByteVocabulary(0)), "targets": seqio.Feature(seqio.ByteVocabulary(5))}
    with pytest.raises(ValueError, match="task two: inputs and targets have different vocabularies"):
        vocabularies.the_one_vocabulary("two", features)


def test_tokens_of_a_foreign_tokenizer_are_named(folder):
    with pytest.raises(ValueError, match="no token for eos='<end>'"):
        _ = vocabularies.HuggingFaceVocabulary(str(folder / "a.json"), eos="<end>").eos_id
    vocabulary = vocabularies.HuggingFaceVocabulary(str(folder / "a.json"), pad=None, unk=None)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, None)
