"""StructBERT (arXiv:1908.04577, section 2.2): put words back in order, and tell how two sentences are related.

  tokens   [CLS] the man [MASK] to store the . [SEP] ...     a shuffled trigram (K = 3) among tokens that are not hidden
  targets                went   the    -   store              the words that were there, where they were

The word objective shuffles 5 % of the trigrams of unhidden tokens and predicts the originals by the same head as masked
tokens, all in one mean. The sentence objective has three classes, a third each: 0 the second text follows the first, 1
it comes before it, 2 it is of another document. No pretraining code was released; a shuffle that changes nothing is
drawn like any other.
"""

import attrs
import numpy as np

from t5x_like.data import replacing
from t5x_like.data.examples import Context, Side
from t5x_like.data.pairing import NEXT, RANDOM, SWAPPED
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.next_sentence import as_mask, check_mask, check_pairs, check_share, masked_pairs
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class Structural(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=MaskedLM, converter=as_mask)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    shuffled_share: float = 0.05
    shuffled_length: int = 3
    short_share: float = 0.1

    def __attrs_post_init__(self):
        check_share("shuffled_share", self.shuffled_share)
        check_share("short_share", self.short_share)
        check_mask(self.mask)
        if self.shuffled_length < 2:
            raise ValueError(f"shuffled_length {self.shuffled_length}: to shuffle takes at least 2 tokens")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        classes = {NEXT: 0, SWAPPED: 1, RANDOM: 2}
        side = masked_pairs(self, rng, documents, context, shares=(1 / 3, 1 / 3, 1 / 3), classes=classes)
        return self.shuffled(rng, side, context)

    def shuffled(self, rng: np.random.Generator, side: Side, context: Context) -> Side:
        """The side with trigrams in another order, whose places are predicted too."""
        special = [context.special.cls_token(), context.special.separator_token()]
        free = (side.loss_weights == 0) & ~np.isin(side.targets, special)
        starts = trigrams(rng, side.lengths, free, self.shuffled_length, self.shuffled_share)
        places = starts[:, None] + np.arange(self.shuffled_length)
        lengths = np.full(len(starts), self.shuffled_length)
        order = replacing.random_order(rng, lengths).reshape(places.shape)
        side.tokens[places] = side.tokens[places.ravel()[order]]
        side.loss_weights[places] = 1.0
        return side

    def check(self, context: Context) -> None:
        check_pairs(self, context)


def trigrams(rng: np.random.Generator, lengths: np.ndarray, free: np.ndarray, size: int, share: float) -> np.ndarray:
    """First places of runs of `size` free tokens that do not touch: `share` of the runs side by side, at random.

    Every stretch of free tokens is cut into runs from its start, so a run is drawn with probability `share`.
    """
    before = np.zeros_like(free)
    before[1:] = free[:-1]
    before[(np.cumsum(lengths) - lengths)[lengths > 0]] = False
    stretch_starts = np.flatnonzero(free & ~before)
    stretch = np.cumsum(free & ~before) - 1
    within = np.arange(len(free)) - stretch_starts[np.maximum(stretch, 0)] if len(stretch_starts) else stretch
    stretch_lengths = np.bincount(stretch[free], minlength=len(stretch_starts))
    fits = free & (within % size == 0)
    fits[fits] = (within[fits] + size) <= stretch_lengths[stretch[fits]]
    starts = np.flatnonzero(fits)
    return starts[rng.random(len(starts)) < share]
