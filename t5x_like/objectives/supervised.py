"""Inputs to targets as the task gives them: translation, question answering, any SeqIO task without an objective.

inputs   translate English to German: That is good. </s>
targets  Das ist gut. </s>
"""

from typing import ClassVar

import attrs
import numpy as np

from t5x_like.data import ragged
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class Supervised(SeqioPreprocessor):
    """append_eos: EOS is added here, after cutting to length (SeqIO's append_eos_after_trim), and not in the task."""

    reads: ClassVar = ("inputs", "targets")

    append_eos: bool = True

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        del rng  # nothing to sample
        room = int(self.append_eos)
        cut = {}
        for name, length in self._lengths(context).items():
            cut[name] = ragged.truncate(documents.features[name], length - room)
            if self.append_eos:
                cut[name] = ragged.append(cut[name], context.special.eos)
        start = np.full(len(cut["targets"].lengths), context.special.pad, np.int32)
        return Examples(cut["inputs"], cut["targets"], start)

    def _lengths(self, context: Context) -> dict[str, int]:
        """A row without an encoder is shared half and half."""
        if "inputs" in context.lengths:
            return context.lengths
        half = context.lengths["targets"] // 2
        return {"inputs": half, "targets": context.lengths["targets"] - half}

    def check(self, context: Context) -> None:
        if min(self._lengths(context).values()) < 2:
            raise ValueError(f"lengths {context.lengths} leave no room for inputs and targets: make them longer")
