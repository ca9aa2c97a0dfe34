"""Train a vocabulary on texts: SentencePiece (unigram, bpe, char, word) or byte-level BPE.

Ids 0, 1, 2 are pad, eos, unk, as T5 and SeqIO expect. Nothing is normalised away: `decode(encode(text)) == text` for
code as well as prose: no Unicode normalisation, spaces kept, newline and tab are symbols of their own, unknown
characters become bytes (unigram and bpe). The one exception is SentencePiece's own mark for a space, U+2581, which
decodes as a space.
"""

import heapq
import os
import pathlib
import random
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
import tokenizers

from t5x_like.vocabularies.special_tokens import check_control_pieces

KINDS = ("unigram", "bpe", "char", "word")
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
    _say(f"training {kind} with {vocab_size:,} pieces")
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(documents),
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
                control_symbols=list(control_pieces),
                num_threads=num_threads,
                minloglevel=2,
            )
        temporary.replace(output)
    except RuntimeError as error:
        raise ValueError(_explain(str(error), vocab_size)) from error
    finally:
        temporary.unlink(missing_ok=True)
    _say(f"wrote {output} in {time.monotonic() - started:.0f} s")
    return output


def train_byte_bpe(
    texts: Iterable[str],
    *,
    output: str | os.PathLike,
    vocab_size: int,
    control_pieces: Sequence[str] = (),
    max_characters: int = 64_000_000,
    seed: int = 0,
) -> pathlib.Path:
    """Byte-level BPE (GPT-2) in the JSON format of `tokenizers`; writes `output` (NAME.json) and returns its path."""
    output = _check_arguments(output, ".json", "bpe", "identity", control_pieces)
    special = [*_RESERVED, *control_pieces]
    if vocab_size < 256 + len(special):
        raise ValueError(f"vocab_size {vocab_size} is too small: bytes and special tokens are {256 + len(special)}")
    documents = sample(texts, max_characters=max_characters, seed=seed)
    started = time.monotonic()
    _say(f"training byte-level BPE with {vocab_size:,} tokens")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
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
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    temporary.write_text(tokenizer.to_str(), encoding="utf-8")
    temporary.replace(output)
    _say(f"wrote {output} in {time.monotonic() - started:.0f} s")
    return output


def sample(texts: Iterable[str], *, max_characters: int, seed: int) -> list[str]:
    """An even sample of whole documents of at most `max_characters`, in their order; the same for the same seed."""
    rng = random.Random(seed)
    kept: list[tuple[float, int, str]] = []  # a heap: the document with the largest draw goes first
    held = seen = num_documents = 0
    for order, text in enumerate(texts):
        text = text[:max_characters]
        seen, num_documents = seen + len(text), num_documents + bool(text)
        heapq.heappush(kept, (-rng.random(), order, text))
        held += len(text)
        while held > max_characters and len(kept) > 1:
            held -= len(heapq.heappop(kept)[2])
        if order % 10_000 == 9_999:
            _say(f"read {order + 1:,} documents, {seen / 1e6:,.1f} million characters")
    if not held:
        raise ValueError("the corpus is empty: no document has any text; check the path and the file suffixes")
    _say(f"read {num_documents:,} documents, {seen / 1e6:,.1f} million characters, of which {held / 1e6:,.1f} are used")
    return [text for _, _, text in sorted(kept, key=lambda item: item[1])]


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


def _say(message: str) -> None:
    print(f"tokenizer: {message}", file=sys.stderr, flush=True)
