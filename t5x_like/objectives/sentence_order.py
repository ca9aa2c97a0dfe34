"""Sentence order prediction beside masked n-grams (ALBERT, arXiv:1909.11942, section 3.1; the released code).

  in order   [CLS] the man went to the [MASK] . [SEP] he bought a gallon of milk . [SEP]     class 0
  swapped    [CLS] he bought a gallon of milk . [SEP] the man went to the [MASK] . [SEP]     class 1

Chunks as in `next_sentence`. Half of the pairs are swapped; a chunk of one sentence gets a second text from another
document and class 1, as in the released code.
"""

import attrs
import numpy as np

from t5x_like.data.examples import Context, Side
from t5x_like.data.pairing import NEXT, RANDOM, SWAPPED
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.next_sentence import as_mask, check_mask, check_pairs, check_share, masked_pairs
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


def _ngrams() -> MaskedLM:
    return MaskedLM(units="words", ngrams=(6 / 11, 3 / 11, 2 / 11))


@attrs.frozen(kw_only=True)
class SentenceOrder(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=_ngrams, converter=as_mask)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    swapped_share: float = 0.5
    short_share: float = 0.1

    def __attrs_post_init__(self):
        check_share("swapped_share", self.swapped_share)
        check_share("short_share", self.short_share)
        check_mask(self.mask)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        shares = (1 - self.swapped_share, self.swapped_share, 0.0)
        classes = {NEXT: 0, SWAPPED: 1, RANDOM: 1}
        return masked_pairs(self, rng, documents, context, shares=shares, classes=classes)

    def check(self, context: Context) -> None:
        check_pairs(self, context)
