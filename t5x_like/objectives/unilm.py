"""UniLM (arXiv:1905.03197, section 2.3): one masked language model under four rules of who sees whom.

  tokens            [CLS] a1 [M] [SEP] b1 [M] [SEP]
  bidirectional     all see all; next-sentence prediction beside it     type_ids 0 0 0 0 1 1 1
  sequence to seq.  a sees a; b sees a and b so far                     type_ids 4 4 4 4 5 5 5
  left to right     each sees those before it                           type_ids 2
  right to left     each sees those behind it                           type_ids 3

Hidden tokens are predicted where they stand, in all four. Each text draws its rule by `shares`, 1/3 1/3 1/6 1/6 in the
order above (the paper draws one for a batch; the share of texts is the same, and each batch has all of them). In a
sequence-to-sequence text the last [SEP] may be hidden too, by which the model learns where to end. 80 % of the choices
are one token, 20 % a bigram or trigram. Pairs are made as for next-sentence prediction; only where everything is seen
is half of them random.
"""

import attrs
import numpy as np

from t5x_like.data import pairing, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.pairing import RANDOM
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.next_sentence import as_mask, check_mask, check_pairs, check_share
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor

BIDIRECTIONAL, SEQUENCE_TO_SEQUENCE, LEFT_TO_RIGHT, RIGHT_TO_LEFT = range(4)
TYPES = np.array([[0, 1], [4, 5], [2, 2], [3, 3]], np.int32)  # of the first and the second text, by rule


@attrs.frozen(kw_only=True)
class UniLM(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=lambda: MaskedLM(ngrams=(0.8, 0.1, 0.1)), converter=as_mask)
    shares: tuple[float, ...] = attrs.field(default=(1 / 3, 1 / 3, 1 / 6, 1 / 6), converter=tuple)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    random_share: float = 0.5
    short_share: float = 0.1

    def __attrs_post_init__(self):
        check_share("random_share", self.random_share)
        check_share("short_share", self.short_share)
        check_mask(self.mask)
        if len(self.shares) != 4 or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise ValueError(
                f"shares {self.shares}: give those of bidirectional, sequence-to-sequence, left-to-right and "
                "right-to-left texts, none negative"
            )

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        text = documents.features["targets"]
        sentences = pairing.find_sentences(text, np.array(self.sentence_ends, np.int64))
        room = context.lengths["targets"] - 3
        shares = (1 - self.random_share, 0.0, self.random_share)
        pairs = pairing.pair_up(rng, sentences, room=room, shares=shares, short=self.short_share)
        rule = rng.choice(4, size=len(pairs.kinds), p=np.array(self.shares) / sum(self.shares))
        framed = pairing.frame(text.values, pairs, context.special)
        lengths, in_second = framed.text.lengths, framed.type_ids > 0
        rules = np.repeat(rule, lengths)
        last = np.zeros(len(rules), bool)
        last[np.cumsum(lengths) - 1] = True
        candidates = framed.candidates | last & (rules == SEQUENCE_TO_SEQUENCE)
        labels = np.where(rule == BIDIRECTIONAL, np.where(pairs.kinds == RANDOM, 2, 1), 0)
        begins = context.begins_word()[framed.text.values] if self.mask.units == "words" else None
        side = self.mask.hide(
            rng,
            framed.text,
            candidates,
            begins,
            context,
            type_ids=TYPES[rules, in_second.astype(np.int64)],
            aux={"pair": pairing.at_first_token(lengths, labels)},
        )
        return side._replace(attn_order=orders(rules, lengths, in_second))

    def check(self, context: Context) -> None:
        check_pairs(self, context)


def orders(rules: np.ndarray, lengths: np.ndarray, in_second: np.ndarray) -> np.ndarray:
    """`attn_order` of every token, int32, by the rule of its text."""
    place = ragged.index_within(lengths)
    size = np.repeat(lengths, lengths)
    num_first = np.repeat(np.add.reduceat(~in_second, np.cumsum(lengths) - lengths), lengths) if len(lengths) else place
    by_rule = [np.zeros_like(place), np.maximum(place - num_first + 1, 0), place, size - 1 - place]
    return np.choose(rules, by_rule).astype(np.int32)
