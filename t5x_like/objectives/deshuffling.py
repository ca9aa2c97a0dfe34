"""Deshuffling (T5, arXiv:1910.10683, section 3.3.1; released as `all_permute`): put the tokens back in order.

  tokens   Thank you for inviting me
  inputs   me inviting Thank for you </s>
  targets  Thank you for inviting me </s>

Documents are cut to pieces but never joined.
"""

import attrs
import numpy as np

from t5x_like.data import chunking, ragged, replacing
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class Deshuffling(SeqioPreprocessor):
    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        pieces = chunking.split_documents(documents.features["targets"], chunking.whole_on_both_sides(context.lengths))
        eos, start = context.special.eos, np.full(len(pieces.lengths), context.special.pad, np.int32)
        inputs = replacing.shuffled(rng, pieces)
        return Examples(ragged.append(inputs, eos), ragged.append(pieces, eos), start)

    def check(self, context: Context) -> None:
        chunking.whole_on_both_sides(context.lengths)
