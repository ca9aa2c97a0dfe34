"""UniLM (arXiv:1905.03197, section 2): one model of masked tokens, four ways in which they see each other.

  mode             share   row                                  who sees whom                   type_ids
  bidirectional    1/3     [CLS] a [SEP] b [SEP]                all see all                     0 and 1
  seq2seq          1/3     [CLS] a [SEP] b [SEP]                b from left to right, and a     4 and 5
  left to right    1/6     [CLS] a [SEP]                        what stands before              2
  right to left    1/6     [CLS] a [SEP]                        what stands behind              3

A hidden token is predicted where it stands, in every mode. In seq2seq the last [SEP] may be hidden too, so that the
model learns to end. Bidirectional pairs are BERT's, half of them of two documents, with their class as aux "pair" (next
sentence); the others are of one text. The paper draws a mode for each batch; here it is drawn for each example, so that
every batch holds all of them. By default 15 % are hidden: single tokens 80 % of the time, else two or three at once.
"""

import attrs
import numpy as np

from t5x_like.data import examples, pairing, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.pairing import NEXT, RANDOM, Pairs
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.next_sentence import as_mask, check_mask, check_pairs, check_share
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor

BIDIRECTIONAL, SEQ2SEQ, LEFT_TO_RIGHT, RIGHT_TO_LEFT = range(4)


@attrs.frozen(kw_only=True)
class UniLM(SeqioPreprocessor):
    """shares: of bidirectional, seq2seq, left to right, right to left."""

    mask: MaskedLM = attrs.field(factory=lambda: MaskedLM(ngrams=(0.8, 0.1, 0.1)), converter=as_mask)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    shares: tuple[float, ...] = attrs.field(default=(1 / 3, 1 / 3, 1 / 6, 1 / 6), converter=tuple)
    random_share: float = 0.5
    short_share: float = 0.1

    def __attrs_post_init__(self):
        check_share("random_share", self.random_share)
        check_share("short_share", self.short_share)
        check_mask(self.mask)
        if len(self.shares) != 4 or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise ValueError(f"shares {self.shares}: four, none below 0, not all 0")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        text = documents.features["targets"]
        sentences = pairing.find_sentences(text, np.array(self.sentence_ends, np.int64))
        shares = np.array(self.shares) / sum(self.shares)
        of_two = shares[BIDIRECTIONAL] * self.random_share
        kinds = (1 - of_two, 0.0, of_two)
        room = context.lengths["targets"] - 3
        pairs = pairing.pair_up(rng, sentences, room=room, shares=kinds, short=self.short_share)
        given_next = shares * [1 - self.random_share, 1, 1, 1]
        modes = np.where(
            pairs.kinds == RANDOM,
            BIDIRECTIONAL,
            np.searchsorted(np.cumsum(given_next), rng.random(len(pairs.kinds)) * given_next.sum(), side="right"),
        )
        two, one = (np.flatnonzero(wanted) for wanted in (modes <= SEQ2SEQ, modes > SEQ2SEQ))
        sides = [
            self.of_pairs(rng, text, Pairs(*(column[two] for column in pairs)), modes[two], context),
            self.of_texts(rng, text, Pairs(*(column[one] for column in pairs)), modes[one], context),
        ]
        return examples.concatenate(sides)

    def of_pairs(self, rng, text: Ragged, pairs: Pairs, modes: np.ndarray, context: Context) -> Side:
        framed = pairing.frame(text.values, pairs, context.special)
        lengths = framed.text.lengths
        is_seq2seq = np.repeat(modes == SEQ2SEQ, lengths)
        within, last = ragged.index_within(lengths), np.repeat(lengths - 1, lengths)
        types = np.where(is_seq2seq, framed.type_ids + 4, framed.type_ids).astype(np.int32)
        labels = np.where(modes == SEQ2SEQ, 0, np.where(pairs.kinds == NEXT, 1, 2))
        side = self._hidden(
            rng,
            framed.text,
            framed.candidates | (is_seq2seq & (within == last)),
            context,
            type_ids=types,
            aux={"pair": pairing.at_first_token(lengths, labels)},
        )
        first = np.repeat(pairs.left_lengths + 1, lengths)  # [SEP] behind the first text
        return side._replace(attn_order=np.where(is_seq2seq, np.maximum(within - first, 0), 0).astype(np.int32))

    def of_texts(self, rng, text: Ragged, pairs: Pairs, modes: np.ndarray, context: Context) -> Side:
        """One text from where the pair begins: with what a pair lost between its two texts, and cut at its end."""
        end = pairs.right_starts + pairs.right_lengths
        lengths = np.minimum(end - pairs.left_starts, context.lengths["targets"] - 2)
        special = context.special
        whole = ragged.gather(text.values, pairs.left_starts, lengths)
        framed = ragged.surround(whole, special.cls_token(), special.separator_token())
        within, last = ragged.index_within(framed.lengths), np.repeat(framed.lengths - 1, framed.lengths)
        is_reversed = np.repeat(modes == RIGHT_TO_LEFT, framed.lengths)
        types = np.where(is_reversed, 3, 2).astype(np.int32)
        side = self._hidden(rng, framed, (within > 0) & (within < last), context, type_ids=types)
        return side._replace(attn_order=np.where(is_reversed, last - within, within).astype(np.int32))

    def _hidden(self, rng, text: Ragged, candidates: np.ndarray, context: Context, **more) -> Side:
        begins = context.begins_word()[text.values] if self.mask.units == "words" else None
        return self.mask.hide(rng, text, candidates, begins, context, **more)

    def check(self, context: Context) -> None:
        check_pairs(self, context)
