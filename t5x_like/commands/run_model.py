"""What a run of ours says of a document, as a model for `Score` in a recipe: `Score.model = @RunModel()`.

It stands with the commands because a run is opened by its own config.gin, which the packages below know nothing of.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from t5x_like.commands import text_jobs

_PER = ("token", "byte")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunModel:
    """Nats a token (its end counts as one) or a byte of UTF-8, by the model of a run; nan for a text without words.

    run          the folder of a training run; step: "latest" or a number
    per          'token', as `t5x_like score` has it: log_likelihood / tokens; 'byte' compares different vocabularies
    characters   of a document's beginning that are measured; a model cannot look beyond its positions
    Raises ValueError where that beginning is longer than the model's positions.
    """

    run: str
    step: str = "latest"
    per: str = "token"
    characters: int = 2_000
    batch_size: int = 8

    def __post_init__(self):
        if self.per not in _PER:
            raise ValueError(f"per {self.per!r}: choose one of {', '.join(_PER)}")
        if self.characters < 1:
            raise ValueError(f"characters {self.characters} must be at least 1")

    def texts(self) -> dict[str, Any]:
        return {}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [texts]."""
        model = _model_of(self.run, self.step, self.batch_size)
        measured = [text[: self.characters] if text.strip() else "" for text in texts]
        told = iter(model.score(("", text) for text in measured if text))
        found = np.full(len(texts), np.nan)
        for place, text in enumerate(measured):
            if text:
                log_likelihood, tokens = next(told)
                found[place] = -log_likelihood / (tokens if self.per == "token" else len(text.encode()))
        return found


@functools.lru_cache(maxsize=2)
def _model_of(run: str, step: str, batch_size: int) -> Any:
    options = argparse.Namespace(
        model_dir=run, step=step, batch_size=batch_size, overrides=[], gin_search_paths="", allow_imports=[]
    )
    return text_jobs.open_model(options)
