"""Next sentence prediction beside masked tokens (BERT, arXiv:1810.04805, section 3.1; the released code).

  is next    [CLS] the man went to the [MASK] . [SEP] he bought a gallon of [MASK] . [SEP]     class 0
  is random  [CLS] the man went to the [MASK] . [SEP] penguins are [MASK] birds . [SEP]        class 1

A chunk of sentences fills the row (one in ten is shorter) and is cut in two; in half of the pairs, and always where the
chunk is one sentence, the second text is of another document, and what it took the place of is used next. Sentences end
at the ids `sentence_ends` of the vocabulary. Tokens are hidden as `mask` says; the loss is the sum of both means:
`SumOfTerms` of predict_tokens and classify_pairs.
"""

import attrs
import numpy as np

from t5x_like.data import pairing
from t5x_like.data.examples import Context, Side
from t5x_like.data.pairing import NEXT, RANDOM
from t5x_like.data.ragged import Documents
from t5x_like.objectives.masked_lm import MaskedLM, check_one_side
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


def as_mask(mask) -> MaskedLM:
    """A MaskedLM, or its fields as task.json has them."""
    return mask if isinstance(mask, MaskedLM) else MaskedLM(**mask)


@attrs.frozen(kw_only=True)
class NextSentence(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=MaskedLM, converter=as_mask)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    random_share: float = 0.5
    short_share: float = 0.1

    def __attrs_post_init__(self):
        check_share("random_share", self.random_share)
        check_share("short_share", self.short_share)
        check_mask(self.mask)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        shares = (1 - self.random_share, 0.0, self.random_share)
        classes = {NEXT: 0, RANDOM: 1}
        return masked_pairs(self, rng, documents, context, shares=shares, classes=classes)

    def check(self, context: Context) -> None:
        check_pairs(self, context)


def masked_pairs(objective, rng, documents: Documents, context: Context, *, shares, classes: dict[int, int]) -> Side:
    """Pairs by `shares` of NEXT, SWAPPED and RANDOM, masked, with 1 + classes[kind] as aux "pair" at their [CLS]."""
    text = documents.features["targets"]
    sentences = pairing.find_sentences(text, np.array(objective.sentence_ends, np.int64))
    room = context.lengths["targets"] - 3
    pairs = pairing.pair_up(rng, sentences, room=room, shares=shares, short=objective.short_share)
    framed = pairing.frame(text.values, pairs, context.special)
    labels = np.array([classes.get(kind, 0) + 1 for kind in range(3)])[pairs.kinds]
    aux = {"pair": pairing.at_first_token(framed.text.lengths, labels)}
    mask = objective.mask
    begins = context.begins_word()[framed.text.values] if mask.units == "words" else None
    return mask.hide(rng, framed.text, framed.candidates, begins, context, type_ids=framed.type_ids, aux=aux)


def check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} {share} is a share: it must be between 0 and 1")


def check_mask(mask: MaskedLM) -> None:
    if mask.masks == "static" or mask.units == "segments" or mask.documents != "isolated":
        raise ValueError(f"{mask}: pairs have dynamic masks of tokens or words; leave masks, units and documents alone")


def check_pairs(objective, context: Context) -> None:
    check_one_side(context, least=8)
    objective.mask.check(context)
    if not objective.sentence_ends:
        raise ValueError(
            f"{type(objective).__name__}.sentence_ends is empty, so every document is one sentence: give the ids of "
            "the vocabulary's full stops"
        )
