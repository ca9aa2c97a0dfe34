"""Classifiers in fastText's files (arXiv:1607.01759), by path: quality (DCLM's), languages (lid.176, GlotLID).

fastText reads one line, so line breaks of a text become spaces. The files are loaded once a process and only predict;
they hold numbers and labels and run nothing. Needs the package `fasttext-predict`, or any other that gives `fasttext`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from t5x_like.corpus.documents import column, drop, with_column

_PREFIX = "__label__"
_CLASSIFIER = 3  # of the kinds of models in a file: 1 and 2 are word vectors
_MAGIC = 793712314


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastTextFile:
    """For `Score`: the probability of `label`, 0 to 1; nan for a text without words.

    label   one of the file's, with or without "__label__": "hq" in DCLM's
    """

    path: str
    label: str

    def __post_init__(self):
        check_file(self.path)
        if bare(self.label) not in (labels := labels_of(self.path)):
            raise ValueError(f"label {self.label!r}: {self.path} has {', '.join(sorted(labels)[:20])}")

    def texts(self) -> dict[str, Any]:
        return {}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        found = [probabilities(self.path, text).get(bare(self.label), np.nan) for text in texts]
        return np.array(found, np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastTextLanguage:
    """As `Language`, by a file whose labels are languages: tells that of documents whose source does not.

    keep       labels; empty: all. at_least: the probability that the best needs; below it "language unsure"
    """

    path: str
    keep: Sequence[str] = ()
    at_least: float = 0.65

    def __post_init__(self):
        check_file(self.path)
        if unknown := sorted(set(self.keep) - labels_of(self.path)):
            raise ValueError(f"keep {unknown}: {self.path} has no such label")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        languages, reasons = [], []
        for known, text in zip(column(batch, "language"), column(batch, "text"), strict=True):
            best, sure = (known, 1.0) if known else self.classify(text)
            wrong = None if not self.keep or best in self.keep else f"language {best}"
            languages.append(best)
            reasons.append(wrong if sure >= self.at_least else "language unsure")
        return drop(with_column(batch, "language", languages), reasons)

    def classify(self, text: str) -> tuple[str, float]:
        """(label, probability); ("", 0) for a text without words."""
        return max(probabilities(self.path, text).items(), key=lambda item: item[1], default=("", 0.0))


def probabilities(path: str, text: str) -> dict[str, float]:
    """Of every label of the file; fastText's may be above 1 by a rounding."""
    line = " ".join(text.split())
    if not line:
        return {}
    labels, values = model_of(path).predict(line, k=-1)
    return {bare(label): min(float(value), 1.0) for label, value in zip(labels, values, strict=True)}


def labels_of(path: str) -> set[str]:
    return {bare(label) for label in model_of(path).predict("a", k=-1)[0]}


def bare(label: str) -> str:
    return label.removeprefix(_PREFIX)


def check_file(path: str) -> None:
    """That it is a classifier of fastText: its reader fails on others without a word, or takes the memory they ask."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"fastText file {path}: no such file; name a .bin or .ftz file")
    with pathlib.Path(path).open("rb") as file:
        head = np.frombuffer(file.read(40), "<i4")
    if len(head) < 10 or head[0] != _MAGIC:
        raise ValueError(f"{path} is no file of fastText: name a .bin or .ftz file that its save_model wrote")
    if head[9] != _CLASSIFIER:
        raise ValueError(f"{path} holds word vectors, no classifier: name a file of a supervised model")


@functools.lru_cache(maxsize=4)
def model_of(path: str) -> Any:
    try:
        import fasttext
    except ImportError:
        raise ModuleNotFoundError(
            "fastText files need the package fasttext-predict: pip install 't5x_like[fasttext]'"
        ) from None
    return fasttext.load_model(path)
