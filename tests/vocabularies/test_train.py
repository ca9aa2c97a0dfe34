import pytest

from t5x_like.vocabularies.train import sample, train_byte_bpe, train_sentencepiece

TEXTS = [f"word{k % 7} and number {k} make a line\n" for k in range(200)]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_vocabulary_too_large_for_the_corpus_says_the_largest_size(tmp_path, kind):
    with pytest.raises(ValueError, match=r"vocab_size 5000 is too large for this corpus: at most \d+") as caught:
        train_sentencepiece(TEXTS, output=tmp_path / "a.model", kind=kind, vocab_size=5000)
    largest = int(str(caught.value).split("at most ")[1].split(",")[0])
    train_sentencepiece(TEXTS, output=tmp_path / "a.model", kind=kind, vocab_size=largest)


def test_a_byte_bpe_too_large_for_the_corpus_says_the_largest_size(tmp_path):
    with pytest.raises(ValueError, match=r"too large for this corpus: at most \d+"):
        train_byte_bpe(TEXTS, output=tmp_path / "a.json", vocab_size=5000)


def test_a_vocabulary_smaller_than_its_bytes_says_the_smallest_size(tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size 40 is too small: .* are \d+"):
        train_sentencepiece(TEXTS, output=tmp_path / "a.model", kind="bpe", vocab_size=40)
    with pytest.raises(ValueError, match=r"vocab_size 40 is too small"):
        train_byte_bpe(TEXTS, output=tmp_path / "a.json", vocab_size=40)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_an_empty_corpus_is_an_error_and_leaves_no_file(tmp_path, texts):
    with pytest.raises(ValueError, match="the corpus is empty"):
        train_sentencepiece(texts, output=tmp_path / "a.model", vocab_size=300)
    assert not list(tmp_path.iterdir())


def test_the_same_texts_give_the_same_file(tmp_path):
    first = train_sentencepiece(TEXTS, output=tmp_path / "a.model", kind="bpe", vocab_size=320, max_characters=3000)
    again = train_sentencepiece(TEXTS, output=tmp_path / "b.model", kind="bpe", vocab_size=320, max_characters=3000)
    assert first.read_bytes() == again.read_bytes()


def test_a_sample_holds_whole_documents_in_order_and_stays_below_its_budget():
    kept = sample(iter(TEXTS), max_characters=1000, seed=3)
    assert 900 < sum(map(len, kept)) <= 1000
    positions = [TEXTS.index(text) for text in kept]
    assert positions == sorted(positions)
    assert min(positions) < 50 and max(positions) > 150


def test_unknown_kinds_and_pieces_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one of \\('unigram'"):
        train_sentencepiece(TEXTS, output=tmp_path / "a.model", kind="unigran", vocab_size=300)
    with pytest.raises(ValueError, match="control piece '\\[R\\]'"):
        train_sentencepiece(TEXTS, output=tmp_path / "a.model", vocab_size=300, control_pieces=["[R]"])
    with pytest.raises(ValueError, match=r"must end in \.model"):
        train_sentencepiece(TEXTS, output=tmp_path / "a", vocab_size=300)
