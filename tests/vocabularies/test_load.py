import dataclasses

import pytest

from t5x_like.vocabularies import load
from t5x_like.vocabularies.special_tokens import SpecialTokens
from t5x_like.vocabularies.train import train_byte_bpe, train_sentencepiece

CODE = '''def fold(items,\ttotal=0):
    """Sum of a list, naïve."""
    for item in items:
        if item > 0:
            total += item   # trailing  spaces  
    return total


class Größe:\r
    pass
'''
TEXTS = [
    CODE,
    *(f"Line {k} of a text about {k * 7} things; the {k}th has {k % 5} parts.\n\n  indented {k}" for k in range(300)),
]
ROUND_TRIP = [
    CODE,
    "",
    " ",
    "\n",
    " \n\n  x\t\ty \n",
    "a\r\nb",
    "日本語 🎉 é",
    "\x00a",
    "trailing  ",
    "</s> <pad> <sep>",
    "\ufeffb",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabularies")
    for kind in ("unigram", "bpe"):
        train_sentencepiece(
            TEXTS, output=folder / f"{kind}.model", kind=kind, vocab_size=450, control_pieces=("<sep>", "<mode:R>")
        )
    train_sentencepiece(TEXTS, output=folder / "char.model", kind="char", vocab_size=300)
    train_byte_bpe(TEXTS, output=folder / "byte_bpe.json", vocab_size=400, control_pieces=("<lang:de>",))
    return folder


def opened(folder, name, extra_ids=100):
    spec = load.describe_file(name and folder / name, extra_ids=extra_ids)
    return load.open_vocabulary(spec, folder)


@pytest.mark.parametrize("name", ["unigram.model", "bpe.model", "byte_bpe.json", None])
@pytest.mark.parametrize("text", ROUND_TRIP)
def test_decoding_gives_back_the_text_exactly(folder, name, text):
    vocabulary = opened(folder, name)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_characters_seen_in_training_round_trip_in_a_character_vocabulary(folder):
    vocabulary = opened(folder, "char.model", extra_ids=0)
    assert vocabulary.decode(vocabulary.encode(TEXTS[5])) == TEXTS[5]
    assert len(vocabulary.encode(TEXTS[5])) == len(TEXTS[5])


@pytest.mark.parametrize("name", ["unigram.model", "bpe.model", "char.model", "byte_bpe.json", None])
def test_layout_is_that_of_seqio(folder, name):
    vocabulary = opened(folder, name)
    special = vocabulary.special
    assert (special.pad, special.eos, special.unk) == (0, 1, 2)
    assert special.sentinels == tuple(vocabulary.size - 1 - k for k in range(100))
    assert vocabulary.pieces(special.sentinels[:2]) == ["<extra_id_0>", "<extra_id_1>"]
    assert max(vocabulary.encode(CODE)) < vocabulary.size - 100


def test_control_pieces_fill_the_table_and_are_not_made_from_text(folder):
    vocabulary = opened(folder, "unigram.model")
    assert vocabulary.special.separator == 3 and dict(vocabulary.special.modes) == {"R": 4}
    assert not {3, 4} & set(vocabulary.encode("<sep> <mode:R>"))
    vocabulary = opened(folder, "byte_bpe.json")
    assert dict(vocabulary.special.languages) == {"de": 3}
    assert not {0, 1, 2, 3} & set(vocabulary.encode("<pad></s><unk><lang:de>"))


@pytest.mark.parametrize("name", ["unigram.model", "byte_bpe.json", None])
def test_pieces_join_to_the_text(folder, name):
    vocabulary = opened(folder, name)
    assert "".join(vocabulary.pieces(vocabulary.encode("for item in items:"))).strip() == "for item in items:"
    assert vocabulary.pieces([vocabulary.size + 5]) == [f"<id {vocabulary.size + 5}>"]


@pytest.mark.parametrize("name", ["unigram.model", "byte_bpe.json", None])
def test_decoding_stops_at_eos_and_survives_rows_outside_the_vocabulary(folder, name):
    vocabulary = opened(folder, name)
    ids = vocabulary.encode("seen")
    assert vocabulary.decode([*ids, vocabulary.size + 3, 1, *vocabulary.encode("not seen")]) == "seen"


def test_a_changed_tokenizer_file_is_refused(folder, tmp_path):
    spec = load.describe_file(folder / "bpe.model", extra_ids=10)
    (tmp_path / "bpe.model").write_bytes((folder / "unigram.model").read_bytes())
    with pytest.raises(ValueError, match="SHA-256 differs"):
        load.open_vocabulary(spec, tmp_path)


def test_a_tokenizer_file_is_never_looked_for_elsewhere(folder):
    spec = load.describe_file(folder / "bpe.model", extra_ids=10)
    with pytest.raises(ValueError, match="plain file name"):
        load.open_vocabulary(spec | {"file": "../bpe.model"}, folder)


def test_a_missing_file_names_its_neighbours(folder):
    with pytest.raises(FileNotFoundError, match=r"unigram\.model"):
        load.describe_file(folder / "unigran.model", extra_ids=0)


def test_an_unnamed_end_token_lists_the_tokens_there_are(folder):
    with pytest.raises(ValueError, match=r"no token for eos='<\|endoftext\|>': name one of \['</s>'"):
        load.describe("huggingface", folder / "byte_bpe.json", extra_ids=0, eos="<|endoftext|>")


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "a.model").write_bytes(b"not a model")
    (tmp_path / "a.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        load.describe_file(tmp_path / "a.model", extra_ids=0)
    with pytest.raises(ValueError, match="not a `tokenizers` JSON file"):
        load.describe_file(tmp_path / "a.json", extra_ids=0)


def test_special_tokens_survive_json():
    special = SpecialTokens(pad=0, eos=1, unk=2, sentinels=(9, 8), separator=3, modes={"R": 4}, languages={"de": 5})
    assert SpecialTokens.from_json(special.to_json()) == special


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"separator": 1}, "eos and separator both have id 1"),
        ({"sentinels": (9, 9)}, "sentinel 0 and sentinel 1 both have id 9"),
        ({"modes": {"R": 9}}, "sentinel 0 and mode 'R' both have id 9"),
        ({"languages": {"de": 10}}, "language 'de' has id 10, outside the vocabulary of 10 ids"),
    ],
)
def test_colliding_special_tokens_are_named(change, message):
    special = SpecialTokens(pad=0, eos=1, unk=2, sentinels=(9,))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(special, **change).check(10)


@pytest.mark.parametrize("name", ["unigram.model", "bpe.model", "byte_bpe.json", None])
@pytest.mark.parametrize("text", ROUND_TRIP)
def test_what_stands_inside_a_text_comes_back_with_its_spaces(folder, name, text):
    vocabulary = opened(folder, name)
    assert vocabulary.decode_inside(vocabulary.encode_inside(text)) == text
    whole = vocabulary.encode("x") + vocabulary.encode_inside(text)
    assert vocabulary.decode(whole) == "x" + text
