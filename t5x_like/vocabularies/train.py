"""Train a vocabulary on texts: SentencePiece (unigram, bpe, char, word), byte-level BPE or WordPiece.

Ids 0, 1, 2 are pad, eos, unk, as T5 and SeqIO expect. Nothing is normalised away: `decode(encode(text)) == text` for
code as well as prose: no Unicode normalisation, spaces kept, newline and tab are symbols of their own, unknown
characters become bytes (unigram and bpe). The one exception is SentencePiece's own mark for a space, U+2581, which
decodes as a space. WordPiece is BERT's and no exact one: it drops spaces, and knows no other characters than it saw.

Texts are sampled by `sampling`. `split_digits` makes every digit a token of its own (Llama, arXiv:2302.13971). With
`chinese_words` a segmenter (rjieba) marks where words end while the vocabulary is trained, so that no piece reaches
over the end of a word and characters and words are mixed; nothing of it is needed, or used, to encode.
"""

import os
import pathlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
import tokenizers

from t5x_like.vocabularies.sampling import sample, say
from t5x_like.vocabularies.special_tokens import check_control_pieces

KINDS = ("unigram", "bpe", "char", "word")
WORD_END = "\ue000"  # of the private use area: no text has it, and SentencePiece takes it away
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
NORMALIZATIONS = ("identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")
_MAX_LINE_BYTES = 4192  # SentencePiece's own limit: longer sentences are skipped, so we cut them
_RESERVED = ("<pad>", "</s>", "<unk>")


def train_sentencepiece(
    texts: Iterable[str],
    *,
    output: str | os.PathLike,
    vocab_size: int,
    kind: str = "unigram",
    normalization: str = "identity",
    character_coverage: float | None = None,
    control_pieces: Sequence[str] = (),
    max_characters: int = 16_000_000,
    split_digits: bool = False,
    chinese_words: bool = False,
    num_threads: int = 2,
    seed: int = 0,
) -> pathlib.Path:
    """Writes `output` (NAME.model) and returns its path.

    max_characters     documents are sampled evenly down to this much text; unigram needs about 20 times that in memory
    character_coverage 0.9995 for unigram and bpe, where bytes stand in for rare characters; 1.0 for char and word
    control_pieces     e.g. ("<sep>", "<mode:R>", "<lang:de>"); see special_tokens.py
    For kind "char", vocab_size is an upper bound: the vocabulary is as large as the alphabet.
    """
    output = _check_arguments(output, ".model", kind, normalization, control_pieces)
    has_bytes = kind in ("unigram", "bpe")
    documents = sample(texts, max_characters=max_characters, seed=seed)
    started = time.monotonic()
    say(f"training {kind} with {vocab_size:,} pieces")
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(map(mark_words, documents) if chinese_words else documents),
                model_writer=file,
                model_type=kind,
                vocab_size=vocab_size,
                hard_vocab_limit=kind != "char",
                pad_id=0,
                eos_id=1,
                unk_id=2,
                bos_id=-1,
                byte_fallback=has_bytes,
                character_coverage=character_coverage or (0.9995 if has_bytes else 1.0),
                normalization_rule_name=normalization,
                remove_extra_whitespaces=False,
                add_dummy_prefix=kind != "char",  # "word" at the start of a text is the same piece as " word" inside it
                allow_whitespace_only_pieces=True,  # indentation in one piece
                user_defined_symbols=["\n", "\t"],
                split_digits=split_digits,
                pretokenization_delimiter=WORD_END if chinese_words else "",
                control_symbols=list(control_pieces),
                num_threads=num_threads,
                minloglevel=2,
            )
        temporary.replace(output)
    except RuntimeError as error:
        raise ValueError(_explain(str(error), vocab_size)) from error
    finally:
        temporary.unlink(missing_ok=True)
    say(f"wrote {output} in {time.monotonic() - started:.0f} s")
    return output


def train_byte_bpe(
    texts: Iterable[str],
    *,
    output: str | os.PathLike,
    vocab_size: int,
    control_pieces: Sequence[str] = (),
    max_characters: int = 64_000_000,
    split_digits: bool = False,
    seed: int = 0,
) -> pathlib.Path:
    """Byte-level BPE (GPT-2) in the JSON format of `tokenizers`; writes `output` (NAME.json) and returns its path."""
    output = _check_arguments(output, ".json", "bpe", "identity", control_pieces)
    special = [*_RESERVED, *control_pieces]
    if vocab_size < 256 + len(special):
        raise ValueError(f"vocab_size {vocab_size} is too small: bytes and special tokens are {256 + len(special)}")
    documents = sample(texts, max_characters=max_characters, seed=seed)
    started = time.monotonic()
    say(f"training byte-level BPE with {vocab_size:,} tokens")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, byte_level]) if split_digits else byte_level
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        largest = tokenizer.get_vocab_size()
        raise ValueError(f"vocab_size {vocab_size} is too large for this corpus: at most {largest}, or give more text")
    return write_json(tokenizer, output, started)


def train_wordpiece(
    texts: Iterable[str],
    *,
    output: str | os.PathLike,
    vocab_size: int,
    lowercase: bool = False,
    control_pieces: Sequence[str] = (),
    max_characters: int = 64_000_000,
    split_digits: bool = False,
    seed: int = 0,
) -> pathlib.Path:
    """BERT's WordPiece (arXiv:1810.04805) in the JSON format of `tokenizers`; writes `output` (NAME.json).

    Words are split at spaces and punctuation and Chinese characters stand alone; a word that the pieces cannot make is
    <unk>. [CLS], [SEP] and [MASK] are among its special tokens.
    """
    output = _check_arguments(output, ".json", "bpe", "identity", control_pieces)
    special = list(dict.fromkeys([*_RESERVED, "[CLS]", "[SEP]", "[MASK]", *control_pieces]))
    documents = sample(texts, max_characters=max_characters, seed=seed)
    started = time.monotonic()
    say(f"training WordPiece with {vocab_size:,} tokens")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    words = tokenizers.pre_tokenizers.BertPreTokenizer()
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, digits]) if split_digits else words
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=special, show_progress=False, limit_alphabet=vocab_size // 2
    )
    tokenizer.train_from_iterator(documents, trainer)
    return write_json(tokenizer, output, started)


def write_json(tokenizer: tokenizers.Tokenizer, output: pathlib.Path, started: float) -> pathlib.Path:
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    temporary.write_text(tokenizer.to_str(), encoding="utf-8")
    temporary.replace(output)
    say(f"wrote {output} in {time.monotonic() - started:.0f} s")
    return output


def mark_words(text: str) -> str:
    """WORD_END behind every word of each run of Chinese characters; all else stays as it is."""
    import rjieba  # only here: nobody else needs the `corpus` extra to train a vocabulary

    return _CHINESE.sub(lambda run: WORD_END.join(rjieba.cut(run.group())), text)


def _lines(documents: Iterable[str]) -> Iterator[str]:
    """Lines, without the newlines and tabs that are symbols of their own, cut to what SentencePiece accepts."""
    for document in documents:
        for line in re.split(r"[\n\t]", document.replace("\0", "")):
            for begin in range(0, len(line), _MAX_LINE_BYTES // 4):  # a character is at most four bytes
                yield line[begin : begin + _MAX_LINE_BYTES // 4]


def _check_arguments(output, suffix: str, kind: str, normalization: str, control_pieces: Sequence[str]) -> pathlib.Path:
    output = pathlib.Path(output)
    if output.suffix != suffix:
        raise ValueError(f"output {output}: the name must end in {suffix}")
    if kind not in KINDS:
        raise ValueError(f"vocabulary kind {kind!r}: one of {KINDS}")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization {normalization!r}: one of {NORMALIZATIONS}")
    check_control_pieces(control_pieces)
    output.parent.mkdir(parents=True, exist_ok=True)
    return output


def _explain(message: str, vocab_size: int) -> str:
    """SentencePiece's assertion as one sentence."""
    if largest := re.search(r"too high \(\d+\).*<= (\d+)", message):
        return f"vocab_size {vocab_size} is too large for this corpus: at most {largest[1]}, or give more text"
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return f"vocab_size {vocab_size} is too small: bytes, special tokens and characters alone are {smallest[1]}"
    return f"SentencePiece could not train: {message.split('] ')[-1].strip() or message}"
