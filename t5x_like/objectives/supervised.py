"""Inputs to targets as the task gives them: translation, question answering, any SeqIO task without an objective.

inputs   translate English to German: That is good. </s>
targets  Das ist gut. </s>

`loss_on="all"` predicts the inputs too: both are one text of a decoder, each token of which sees those before it. What
is too long loses its end, or what the policy `cut` of data/truncation.py takes.
"""

from typing import ClassVar, Literal

import attrs
import numpy as np

from t5x_like.data import ragged, truncation
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class Supervised(SeqioPreprocessor):
    """append_eos: EOS is added here, after cutting to length (SeqIO's append_eos_after_trim), and not in the task."""

    reads: ClassVar = ("inputs", "targets")

    append_eos: bool = True
    loss_on: Literal["targets", "all"] = "targets"
    cut: Literal["head", "tail", "random_chunk"] = "head"

    def __attrs_post_init__(self):
        for name, allowed in (("loss_on", ("targets", "all")), ("cut", tuple(truncation.POLICIES))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r}: choose one of {', '.join(allowed)}")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        room = int(self.append_eos)
        cut = {}
        for name, length in self._lengths(context).items():
            cut[name] = truncation.POLICIES[self.cut](rng, documents.features[name], length - room)
            if self.append_eos:
                cut[name] = ragged.append(cut[name], context.special.eos)
        start = np.full(len(cut["targets"].lengths), context.special.pad, np.int32)
        if self.loss_on == "all":
            return Examples(None, ragged.join_pairs(cut["inputs"], cut["targets"]), start)
        return Examples(cut["inputs"], cut["targets"], start)

    def _lengths(self, context: Context) -> dict[str, int]:
        """A row without an encoder is shared half and half."""
        if "inputs" in context.lengths:
            return context.lengths
        half = context.lengths["targets"] // 2
        return {"inputs": half, "targets": context.lengths["targets"] - half}

    def check(self, context: Context) -> None:
        if self.loss_on == "all" and "inputs" in context.lengths:
            raise ValueError(f"lengths {context.lengths}: an encoder's inputs are not predicted, give targets alone")
        if min(self._lengths(context).values()) < 2:
            raise ValueError(f"lengths {context.lengths} leave no room for inputs and targets: make them longer")
