"""Sentence unshuffling (SLM, arXiv:2010.16249, section 3): where in the text did each of these sentences stand?

  text    S1 S2 S3        [CLS] S3 [SEP] S1 [SEP] S2 [SEP]      classes 2, 0, 1, each at the token before its sentence

An example is as many sentences of one document as fit a row, `max_sentences` at most, in random order, beside masked
tokens. The paper points at the sentences one after another with a decoder; here each sentence is told its place by a
classifier (`classify_pairs`, a PairHead of max_sentences classes), which needs no second stack.
"""

import attrs
import numpy as np

from t5x_like.data import pairing, ragged, replacing
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.next_sentence import as_mask, check_mask, check_pairs
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class SentenceUnshuffling(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=MaskedLM, converter=as_mask)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    max_sentences: int = 8

    def __attrs_post_init__(self):
        check_mask(self.mask)
        if self.max_sentences < 2:
            raise ValueError(f"max_sentences {self.max_sentences}: order takes at least 2")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        text, special = documents.features["targets"], context.special
        separator, length = special.separator_token(), context.lengths["targets"]
        found = pairing.find_sentences(text, np.array(self.sentence_ends, np.int64))
        document = np.repeat(np.arange(len(text.lengths)), found.last_of - found.first_of)
        sizes, document = pairing.cut_sentences(found.lengths, document, length - 2)
        ends = pairing.group_sentences(sizes + 1, document, length - 1, self.max_sentences)
        counts = np.diff(ends, prepend=0)
        order = replacing.random_order(rng, counts)
        sentences = ragged.append(ragged.take(Ragged(text.values, sizes), order), separator)
        lengths = np.bincount(np.repeat(np.arange(len(counts)), counts), sentences.lengths).astype(np.int64)
        cls = Ragged(np.full(len(counts), special.cls_token(), np.int32), np.ones_like(counts))
        shuffled = ragged.join_pairs(cls, Ragged(sentences.values, lengths))
        before = sentences.starts + np.repeat(np.arange(len(counts)), counts)  # one [CLS] a group stands before it
        label = np.zeros(len(shuffled.values), np.int32)
        label[before] = np.where(np.repeat(counts, counts) > 1, order - np.repeat(ends - counts, counts) + 1, 0)
        candidates = np.ones(len(label), bool)
        candidates[before] = candidates[shuffled.starts + shuffled.lengths - 1] = False
        begins = context.begins_word()[shuffled.values] if self.mask.units == "words" else None
        return self.mask.hide(rng, shuffled, candidates, begins, context, aux={"pair": label})

    def check(self, context: Context) -> None:
        check_pairs(self, context)
