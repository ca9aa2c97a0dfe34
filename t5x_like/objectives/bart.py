"""BART (arXiv:1910.13461, section 2.2; fairseq's denoising_dataset): a damaged document in, the whole document out.

  document    A B C . D E .

  masking     A <m> C . D <m> .       tokens chosen one by one, each behind the mask token
  deletion    A C . D .               and each gone
  infilling   A <m> . D <m> E .       spans of Poisson(3) tokens behind one mask token; a span of none inserts one
  sentences   D E . A B C .           `permute_sentences` of the sentences in each other's places
  rotation    C . D E . A B           with probability `rotate`

Done in the order of the released code: sentences, then masking of one kind, then rotation. The defaults are the recipe
of the released models (infilling of 0.3, all sentences permuted); mBART has mask_ratio 0.35 and mean_span 3.5.
Sentences end at the ids `sentence_ends` of the vocabulary (its full stops). The mask token is the vocabulary's, or its
first sentinel. Tokens stand where that code has words, of which it masks whole ones.
"""

from typing import Literal

import attrs
import numpy as np

from t5x_like.data import chunking, infilling, ragged, replacing
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class Bart(SeqioPreprocessor):
    noise: Literal["infilling", "masking", "deletion", "none"] = "infilling"
    mask_ratio: float = 0.3
    mean_span: float = 3.0
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    permute_sentences: float = 1.0
    rotate: float = 0.0

    def __attrs_post_init__(self):
        if self.noise not in _NOISES:
            raise ValueError(f"noise {self.noise!r}: choose one of {sorted(_NOISES)}")
        shares = {"mask_ratio": self.mask_ratio, "permute_sentences": self.permute_sentences, "rotate": self.rotate}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} {share} is a share: it must be between 0 and 1")
        if not self.mean_span > 0:
            raise ValueError(f"mean_span {self.mean_span} must be above 0")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        length = chunking.whole_on_both_sides(context.lengths)
        pieces = chunking.split_documents(documents.features["targets"], length)
        inputs = infilling.permute_sentences(rng, pieces, np.array(self.sentence_ends), share=self.permute_sentences)
        inputs = _NOISES[self.noise](self, rng, inputs, context)
        inputs = infilling.rotate(rng, inputs, share=self.rotate)
        inputs = ragged.truncate(inputs, length)  # spans of no tokens can make a text longer
        eos, start = context.special.eos, np.full(len(pieces.lengths), context.special.pad, np.int32)
        return Examples(ragged.append(inputs, eos), ragged.append(pieces, eos), start)

    def check(self, context: Context) -> None:
        chunking.whole_on_both_sides(context.lengths)
        context.special.mask_token()


def _infilling(bart: Bart, rng, tokens: Ragged, context: Context) -> Ragged:
    mask = context.special.mask_token()
    return infilling.infill(rng, tokens, ratio=bart.mask_ratio, mean_span=bart.mean_span, mask_token=mask)


def _masking(bart: Bart, rng, tokens: Ragged, context: Context) -> Ragged:
    chosen = infilling.chosen(rng, tokens.lengths, ratio=bart.mask_ratio)
    return replacing.each_by(tokens, chosen, context.special.mask_token())


def _deletion(bart: Bart, rng, tokens: Ragged, context: Context) -> Ragged:
    return replacing.dropped(tokens, infilling.chosen(rng, tokens.lengths, ratio=bart.mask_ratio))


_NOISES = {
    "infilling": _infilling,
    "masking": _masking,
    "deletion": _deletion,
    "none": lambda bart, rng, tokens, context: tokens,
}
