import pytest
import sentencepiece

from t5x_like.vocabularies import load
from t5x_like.vocabularies.sampling import balanced, sample, shares_of
from t5x_like.vocabularies.train import train_byte_bpe, train_sentencepiece

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


CHINESE = ["我们在北京大学学习自然语言处理，今天的天气很好。", "北京的天气今天很好，我们去大学学习。"] * 30


def test_pieces_of_chinese_text_end_where_words_end(tmp_path):
    rjieba = pytest.importorskip("rjieba", reason="the `corpus` extra is not installed")
    path = train_sentencepiece(
        CHINESE, output=tmp_path / "a.model", kind="bpe", vocab_size=302, chinese_words=True, character_coverage=1.0
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    words = {word for text in CHINESE for word in rjieba.cut(text)}
    learnt = [processor.id_to_piece(i).lstrip("\u2581") for i in range(processor.get_piece_size())]
    learnt = [piece for piece in learnt if len(piece) > 1 and not piece.startswith("<")]
    assert "北京大学" in words and any(len(piece) > 1 for piece in learnt)
    assert all(any(piece in word for word in words) for piece in learnt)
    assert processor.decode(processor.encode(CHINESE[0])) == CHINESE[0]


@pytest.mark.parametrize(("name", "size"), [("a.model", 290), ("a.json", 264)])
def test_digits_are_tokens_of_their_own(tmp_path, name, size):
    texts = [f"in {year} and {year} again" for year in range(1900, 2000)] * 3
    settings = {"output": tmp_path / name, "vocab_size": size, "split_digits": True}
    if name == "a.model":
        train_sentencepiece(texts, kind="bpe", **settings)
    else:
        train_byte_bpe(texts, **settings)
    vocabulary = load.open_vocabulary(load.describe_file(tmp_path / name, extra_ids=0), tmp_path)
    assert [piece.strip() for piece in vocabulary.pieces(vocabulary.encode("1999")) if piece.strip()] == list("1999")
    assert vocabulary.decode(vocabulary.encode("in 1999")) == "in 1999"


def test_small_groups_get_more_than_their_share_and_no_more_than_they_have():
    assert shares_of({"en": 10_000, "de": 10_000}, 1000, 0.3) == {"en": 500, "de": 500}
    shares = shares_of({"en": 1_000_000, "sw": 10_000}, 100_000, 0.3)
    assert shares == {"sw": 10_000, "en": 90_000}
    shares = shares_of({"en": 1_000_000, "de": 100_000}, 100_000, 0.5)
    assert abs(shares["en"] / shares["de"] - 10**0.5) < 0.01
    assert shares_of({"en": 10, "de": 20, "x": 0}, 1000, 0.3) == {"en": 10, "de": 20}
    kept = balanced(lambda: [("a", "x" * 10)] * 100 + [("b", "y" * 10)] * 10, max_characters=200, alpha=0.0, seed=0)
    assert sum(text[0] == "y" for text in kept) == 10 and sum(text[0] == "x" for text in kept) == 10
    with pytest.raises(ValueError, match=r"alpha 2.0 must be between"):
        balanced(lambda: [], max_characters=10, alpha=2.0, seed=0)
