"""Next-token prediction (GPT-2; T5's `full_lm`): every token is predicted from those before it in its document.

  document  Thank you for inviting me </s>
  tokens    <pad> Thank you for inviting me
  targets   Thank you for inviting me </s>

`documents="isolated"` packs documents into rows in which none sees another; a document longer than a row goes on in
another one, behind its own last token. `documents="concatenated"` is GPT's way: one stream of text, cut into windows
that read across document borders.
"""

from typing import Literal

import attrs
import numpy as np

from t5x_like.data import chunking, ragged
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class CausalLM(SeqioPreprocessor):
    documents: Literal["isolated", "concatenated"] = "isolated"

    def __attrs_post_init__(self):
        if self.documents not in _CUTS:
            raise ValueError(f"documents {self.documents!r}: choose one of {sorted(_CUTS)}")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        del rng  # nothing to sample
        text = ragged.append(documents.features["targets"], context.special.eos, where=documents.ends)
        start_tokens, targets = _CUTS[self.documents](text, context)
        return Examples(None, targets, start_tokens)

    def check(self, context: Context) -> None:
        if "inputs" in context.lengths:
            raise ValueError(f"lengths {context.lengths}: a causal language model has no inputs, give targets alone")


def _isolated(text: Ragged, context: Context) -> tuple[np.ndarray, Ragged]:
    pieces = chunking.split_documents(text, context.lengths["targets"])
    starts = pieces.starts
    start_tokens = text.values[np.maximum(starts - 1, 0)]
    start_tokens[np.isin(starts, text.starts)] = context.special.pad
    return start_tokens, pieces


def _concatenated(text: Ragged, context: Context) -> tuple[np.ndarray, Ragged]:
    return chunking.windows(text.values, context.lengths["targets"])


_CUTS = {"isolated": _isolated, "concatenated": _concatenated}
