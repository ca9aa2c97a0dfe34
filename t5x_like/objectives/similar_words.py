"""MacBERT (arXiv:2004.13922, section 3.1): hidden words are replaced by similar ones instead of a mask token.

  text      [CLS] use language models to predict the probability [SEP]
  similar         employ 0     0      0  forecast 0  odds            the feature `similar`: a token like it, 0 for none
  tokens    [CLS] use language models to forecast the probability [SEP]
  targets                                predict

Whole words and runs of 1 to 4 of them (40, 30, 20, 10 %) are chosen, 15 % of the tokens. 80 % become the similar token
that the task gives for them (the paper: word2vec neighbours, found in `prepare`), or a random one where it gives none;
10 % a random one; 10 % stay.
"""

import attrs
import numpy as np

from t5x_like.data import choosing, chunking, ragged, replacing
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import check_one_side, check_shares
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class SimilarWords(SeqioPreprocessor):
    rate: float = 0.15
    ngrams: tuple[float, ...] = attrs.field(
        default=(0.4, 0.3, 0.2, 0.1), converter=lambda shares: tuple(map(float, shares))
    )
    similar: float = 0.8
    random: float = 0.1
    max_predictions: int | None = None

    reads = ("targets", "similar")

    def __attrs_post_init__(self):
        check_shares(self.rate, self.similar, self.random)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        special, room = context.special, context.lengths["targets"] - 2
        pieces = chunking.split_documents(documents.features["targets"], room)
        text = ragged.surround(pieces, special.cls_token(), special.separator_token())
        similar = ragged.surround(chunking.split_documents(documents.features["similar"], room), 0, 0).values
        units = choosing.find_units(text.lengths, choosing.inside(text), context.begins_word()[text.values])
        budgets = choosing.bert_budget(text.lengths, self.rate, self.max_predictions)
        mask = units.mask(choosing.ngrams_within_budget(rng, units, budgets, self.ngrams))
        draw = rng.random(len(mask))
        as_similar = mask & (draw < self.similar)
        as_random = mask & (draw < self.similar + self.random) & ~(as_similar & (similar > 0))
        tokens = replacing.by_random(rng, text, as_random, context.ordinary_ids())
        tokens.values[as_similar & (similar > 0)] = similar[as_similar & (similar > 0)]
        return Side.bidirectional(tokens, text.values, mask)

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)
        context.begins_word()
