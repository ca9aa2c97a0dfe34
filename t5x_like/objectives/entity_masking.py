"""Entity and phrase masking (ERNIE 1.0, arXiv:1904.09223, section 3.2; PaddlePaddle/ERNIE batching.py).

  text       [CLS] J . K . Rowling wrote Harry Potter [SEP]
  entities         2 3 3 3 3       0     4     5           the feature `entities`: 2 e begins entity e, 2 e + 1 goes on
  tokens     [CLS] [MASK] [MASK] ...  wrote Harry Potter [SEP]

Every entity, and every other token by itself, is chosen with probability `rate`; then each token of it is masked,
random or kept on its own, 80 / 10 / 10. The paper's three stages (words, phrases, entities) are three tasks whose
feature marks the one or the other; phrases have any number e.
"""

import attrs
import numpy as np

from t5x_like.data import choosing, chunking, ragged, replacing
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import check_one_side, check_shares
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class EntityMasking(SeqioPreprocessor):
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    reads = ("targets", "entities")

    def __attrs_post_init__(self):
        check_shares(self.rate, self.masked, self.random)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        special, room = context.special, context.lengths["targets"] - 2
        pieces = chunking.split_documents(documents.features["targets"], room)
        text = ragged.surround(pieces, special.cls_token(), special.separator_token())
        entities = ragged.surround(chunking.split_documents(documents.features["entities"], room), 0, 0).values
        units = choosing.find_units(text.lengths, choosing.inside(text), entities % 2 == 0)
        mask = units.mask(rng.random(len(units.sequence)) < self.rate)
        tokens = replacing.bert_style(
            rng,
            text,
            mask,
            masked=self.masked,
            random=self.random,
            mask_token=special.mask_token(),
            allowed=np.arange(context.vocab_size),
        )
        return Side.bidirectional(tokens, text.values, mask)

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)
