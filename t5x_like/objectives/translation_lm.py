"""Translation language modelling (XLM, arXiv:1901.07291, section 3.3): masked tokens in a sentence and its translation.

  inputs, targets of the task   the curtains were blue | les rideaux etaient bleus
  tokens      </s> the curtains [M] blue </s>   </s> [M] rideaux etaient bleus </s>
  targets                      were                 les
  positions   0    1   2        3   4    5      0    1   2       3       4     5         begin anew
  type_ids    0    0   0        0   0    0      1    1   1       1       1     1         languages

Every token sees both sentences. A pair that is too long loses tokens of its longer side first, at random ends.
`languages` are the rows of the model's type embedding for inputs and targets; the pairs of several languages are tasks
of a mixture, each with its own. XLM chooses 15 % of the tokens, each by itself: `mask` is MaskedLM(budget="each").
As in its released code, only the first token of a pair is never chosen; the ends inside may be.
"""

import attrs
import numpy as np

from t5x_like.data import pairing, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM, check_one_side
from t5x_like.objectives.next_sentence import as_mask, check_mask
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class TranslationLM(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=lambda: MaskedLM(budget="each"), converter=as_mask)
    languages: tuple[int, int] = attrs.field(default=(0, 1), converter=tuple)

    reads = ("inputs", "targets")

    def __attrs_post_init__(self):
        check_mask(self.mask)
        if len(self.languages) != 2 or min(self.languages) < 0:
            raise ValueError(f"languages {self.languages} are two rows of the type embedding, counted from 0")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        eos = context.special.eos
        both = [documents.features[name] for name in self.reads]
        (left, right), room = both, context.lengths["targets"] - 4
        cut = pairing.shortened(rng, left.starts, left.lengths, right.starts, right.lengths, room)
        left, right = (
            ragged.surround(ragged.gather(text.values, start, size), eos, eos)
            for text, start, size in zip(both, cut[::2], cut[1::2], strict=True)
        )
        text = ragged.join_pairs(left, right)
        place = ragged.index_within(text.lengths)
        in_right = place >= np.repeat(left.lengths, text.lengths)
        positions = np.where(in_right, place - np.repeat(left.lengths, text.lengths), place).astype(np.int32)
        candidates = place > 0
        begins = context.begins_word()[text.values] if self.mask.units == "words" else None
        types = np.where(in_right, self.languages[1], self.languages[0]).astype(np.int32)
        return self.mask.hide(rng, text, candidates, begins, context, positions=positions[:, None], type_ids=types)

    def check(self, context: Context) -> None:
        check_one_side(context, least=8)
        self.mask.check(context)
