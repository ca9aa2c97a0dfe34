"""Models in KenLM's own binary files (Heafield 2011), as CCNet publishes them, read by KenLM itself.

The package `kenlm` has no wheels: it is compiled when it is installed, so it is an extra of its own.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from t5x_like.corpus.perplexity import lines_of, splitter

_MAGIC = b"mmap lm http://kheafield.com/code format version"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KenlmFile:
    """Perplexity a token by a binary file of KenLM (build_binary), with the SentencePiece model of its tokens.

    tokenizer   empty: tokens are words between spaces
    An ARPA file needs no KenLM: `ArpaFile`.
    """

    path: str
    tokenizer: str = ""

    def __post_init__(self):
        for path in (self.path, self.tokenizer):
            if path and not pathlib.Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such file; a KenLM file and the .model of its tokens are needed")
        if not is_binary(self.path):
            raise ValueError(f"{self.path} is no binary file of KenLM: an ARPA file is read by ArpaFile")

    def texts(self) -> dict[str, Any]:
        return {}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [texts]; nan for a text without words."""
        score, split = score_of(self.path), splitter(self.tokenizer)
        found = np.full(len(texts), np.nan)
        for place, text in enumerate(texts):
            lines = [split(line) for line in lines_of(text)]
            if lines:
                predicted = sum(len(tokens) + 1 for tokens in lines)  # and the end of each
                found[place] = 10.0 ** (-sum(score(" ".join(tokens)) for tokens in lines) / predicted)
        return found


def is_binary(path: str) -> bool:
    with pathlib.Path(path).open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@functools.lru_cache(maxsize=4)
def score_of(path: str) -> Callable[[str], float]:
    """log10 p of a sentence, its end too."""
    try:
        import kenlm
    except ImportError:
        raise ModuleNotFoundError(
            "KenLM's binary files need the package kenlm, which is compiled when it is installed (a C++ compiler, "
            "minutes): pip install 't5x_like[kenlm]'; an ARPA file (ArpaFile) needs nothing"
        ) from None
    return kenlm.Model(path).score
