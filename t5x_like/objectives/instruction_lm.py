"""Instruction pretraining (arXiv:2406.14491, section 2.2): a text followed by questions and answers about it.

  text       The Rhine is 1,233 km long.  Question: How long is the Rhine?  Answer:  1,233 km </s>
  responses  0                            0                                         1         1

`texts_per_example` = M texts with their pairs, one after another, are M-shot examples. Every token sees those before
it. The paper's loss is on all tokens, as in vanilla pretraining; `loss_on="response"` leaves out what is given. The
feature `responses` of the task holds 1 at the tokens of answers: `tasks.instruction_text` makes both features from
texts and pairs, by templates.
"""

from typing import Literal

import attrs
import numpy as np

from t5x_like.data import chunking, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.data.rendering import shift_right
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class InstructionLM(SeqioPreprocessor):
    loss_on: Literal["all", "response"] = "all"
    texts_per_example: int = 1

    reads = ("targets", "responses")

    def __attrs_post_init__(self):
        if self.loss_on not in ("all", "response") or self.texts_per_example < 1:
            raise ValueError(f"{self}: loss_on is 'all' or 'response', texts_per_example at least 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        del rng  # nothing to sample
        ends = documents.ends
        text = ragged.append(documents.features["targets"], context.special.eos, where=ends)
        flags = ragged.append(documents.features["responses"], 0, where=ends)
        # EOS belongs to what it ends.
        last = np.cumsum(flags.lengths)[ends] - 1
        flags.values[last] = flags.values[np.maximum(last - 1, 0)]
        whole = Ragged(text.values, _joined(text.lengths, self.texts_per_example))
        pieces = chunking.split_documents(whole, context.lengths["targets"])
        weights = flags.values > 0 if self.loss_on == "response" else np.ones(len(text.values), bool)
        starts = pieces.values[np.maximum(pieces.starts - 1, 0)]
        starts[np.isin(pieces.starts, whole.starts)] = context.special.pad
        order = ragged.index_within(pieces.lengths).astype(np.int32)
        tokens = shift_right(pieces, starts)
        return Side(tokens, pieces.values, weights.astype(np.float32), order, pieces.lengths)

    def check(self, context: Context) -> None:
        if "inputs" in context.lengths or context.lengths["targets"] < 2:
            raise ValueError(f"lengths {context.lengths}: this is a decoder's text, give targets alone, of at least 2")


def _joined(lengths: np.ndarray, group: int) -> np.ndarray:
    """Sums of every `group` lengths in a row; the last sum may have fewer."""
    return np.add.reduceat(lengths, np.arange(0, len(lengths), group)) if len(lengths) else lengths
