"""How surprising a text is to a model of good text: perplexity a token, as CCNet measures it (arXiv:1911.00359).

10 ** (-sum of log10 p / sum of (tokens + 1)) over the lines of a document that are not empty, after `normalize`. Low is
like the text that the model learnt from; what is very low is often a template, what is very high no prose.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sentencepiece

from t5x_like.corpus import learning, ngram_model
from t5x_like.vocabularies.sampling import sample
from t5x_like.vocabularies.train import train_sentencepiece

_TOKENIZER = "tokenizer.model"
_MARKS = str.maketrans(
    {
        **dict.fromkeys("„”“«»１」「《》", '"'),
        **dict.fromkeys("´’", "'"),
        **{"，": ",", "、": ",", "。": ".", "∶": ":", "：": ":", "？": "?", "！": "!", "（": "(", "）": ")", "；": ";"},
        **{"–": "-", "—": " - ", "━": "-", "►": "-", "．": ". ", "～": "~", "…": "...", "％": "%"},
        **{"〈": "<", "〉": ">", "【": "[", "】": "]"},
    }
)
_NOT_PRINTED = re.compile("[\x00-\x1f\x7f-\x9f]")
_DIGIT = re.compile(r"\d")


def normalize(line: str) -> str:
    """As CCNet's text_normalizer does: lower case, no accents, every digit 0, one kind of each punctuation mark."""
    line = line.strip().lower()
    if not line.isascii():
        line = _accents().sub("", unicodedata.normalize("NFD", line)).translate(_MARKS)
    return _NOT_PRINTED.sub("", _DIGIT.sub("0", line))


@functools.cache
def _accents() -> re.Pattern:
    """Every mark that stands on a letter (category Mn)."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Mn"]
    return re.compile(f"[{''.join(marks)}]+")


def lines_of(text: str) -> list[str]:
    return [line for line in map(normalize, text.split("\n")) if line]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainNgrams:
    """A model of n-grams of SentencePiece tokens that is trained on the texts of a reader before the first stage.

    reference    a reader of text that is as text should be, in one language: encyclopedia, edited news, books
    order        tokens of the longest n-gram; CCNet has 5
    vocab_size   of the unigram tokenizer that is trained for it; CCNet has 65,536
    characters   most characters of the reference that are used, a random sample; memory is about 100 bytes for each
    tokenizer_characters   of these, so many for the tokenizer
    """

    reference: Any
    order: int = 3
    vocab_size: int = 8_000
    characters: int = 20_000_000
    tokenizer_characters: int = 4_000_000
    seed: int = 0

    def __post_init__(self):
        if self.order < 1:
            raise ValueError(f"order {self.order} must be at least 1")

    def texts(self) -> dict[str, Any]:
        return {"reference": self.reference}

    def train(self, folder: pathlib.Path) -> dict:
        texts = sample(learning.texts_of(self.reference), max_characters=self.characters, seed=self.seed)
        lines = [line for text in texts for line in lines_of(text)]
        path = train_sentencepiece(
            lines,
            output=folder / _TOKENIZER,
            vocab_size=self.vocab_size,
            max_characters=self.tokenizer_characters,
            seed=self.seed,
        )
        tokens = encode(str(path), lines)
        size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
        levels = ngram_model.train(ngram_model.lines_of(tokens), self.order, ngram_model.FIRST + size)
        ngram_model.save(levels, folder)
        return {
            "texts": len(texts),
            "lines": len(lines),
            "tokens": sum(map(len, tokens)),
            "ngrams": [len(level.keys) for level in levels],
        }

    def trained(self, folder: str) -> "NgramFolder":
        return NgramFolder(folder=folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramFolder:
    """A model that `TrainNgrams` made for an earlier corpus: its folder under models/."""

    folder: str

    def __post_init__(self):
        if not pathlib.Path(self.folder, _TOKENIZER).is_file():
            raise FileNotFoundError(f"{self.folder} holds no n-gram model: name a folder under models/ of a corpus")

    def texts(self) -> dict[str, Any]:
        return {}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        levels, tokenizer = ngram_model.load(self.folder), str(pathlib.Path(self.folder, _TOKENIZER))
        lines = [lines_of(text) for text in texts]
        ids = iter(encode(tokenizer, list(itertools.chain(*lines))))
        return perplexities(levels, [list(itertools.islice(ids, len(own))) for own in lines])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArpaFile:
    """A model in ARPA format (lmplz of KenLM, SRILM; .gz or not) with the SentencePiece model of its tokens.

    tokenizer   empty: tokens are words between spaces
    KenLM's binary files are its own: `KenlmFile`.
    """

    path: str
    tokenizer: str = ""

    def __post_init__(self):
        for path in (self.path, self.tokenizer):
            if path and not pathlib.Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such file; an ARPA file and the .model of its tokens are needed")

    def texts(self) -> dict[str, Any]:
        return {}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        levels, words = _arpa(self.path)
        split = splitter(self.tokenizer)
        known = [[[words.get(w, ngram_model.UNKNOWN) for w in split(line)] for line in lines_of(t)] for t in texts]
        return perplexities(levels, known)


def perplexities(levels: Sequence[ngram_model.Level], documents: Sequence[list[list[int]]]) -> np.ndarray:
    """float64 [documents] from the token ids of their lines; nan for one without a line."""
    lines = ngram_model.lines_of([line for document in documents for line in document])
    log_p = ngram_model.log_probabilities(levels, lines)
    sizes = np.array([sum(len(line) + 2 for line in document) for document in documents], np.int64)
    predicted = sizes - np.array([len(document) for document in documents], np.int64)
    sums = np.concatenate([[0.0], np.cumsum(log_p)])
    ends = np.cumsum(sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 10.0 ** (-(sums[ends] - sums[ends - sizes]) / predicted)


def splitter(tokenizer: str) -> Callable[[str], list[str]]:
    """What makes pieces of a line: a SentencePiece model, or the spaces between words if there is none."""
    return _processor(tokenizer).encode_as_pieces if tokenizer else str.split


def encode(tokenizer: str, lines: Sequence[str]) -> list[list[int]]:
    """Ids of a SentencePiece model, after those that a model of n-grams has for itself. Many lines a call are fast."""
    encoded = _processor(tokenizer).encode(list(lines), num_threads=1)
    return [[token + ngram_model.FIRST for token in ids] for ids in encoded]


@functools.lru_cache(maxsize=8)
def _processor(path: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=path)


@functools.lru_cache(maxsize=4)
def _arpa(path: str) -> tuple[list[ngram_model.Level], dict[str, int]]:
    return ngram_model.read_arpa(pathlib.Path(path))
