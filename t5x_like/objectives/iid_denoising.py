"""Denoising of tokens chosen one by one (T5, arXiv:1910.10683, sections 3.3.1 and 3.3.2; released `iid_denoising`).

  tokens             Thank you for inviting me to your party last week

  unique_sentinels   inputs  Thank you <s0> me to your party <s1> week   targets  <s0> for inviting <s1> last <s2>
  drop               inputs  Thank you me to your party week             targets  for inviting last
  mass               inputs  Thank you <s0> <s0> me to your party <s0> week       targets  all tokens
  bert               as mass, but a tenth of the hidden tokens are random ones    targets  all tokens

In T5's names: iid_15_u_u, iid_15_d_d, iid_15_m_f (after MASS, arXiv:1905.02450) and iid_15_r10s90_f (after BERT). As in
the released code, noise at the start of a text has no sentinel before it in the targets. Beyond that code: a row never
gets more noise than its targets and the sentinels can hold; the rest of it stays text (six standard deviations of room
are required, so this is a guard and not a habit).
"""

import math
from typing import Literal

import attrs
import numpy as np

from t5x_like.data import chunking, masking, ragged, replacing
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class IidDenoising(SeqioPreprocessor):
    noise_density: float = 0.15
    style: Literal["unique_sentinels", "drop", "mass", "bert"] = "unique_sentinels"

    def __attrs_post_init__(self):
        if self.style not in _STYLES:
            raise ValueError(f"style {self.style!r}: choose one of {sorted(_STYLES)}")
        if not 0 < self.noise_density < 1:
            raise ValueError(f"noise_density {self.noise_density} must be between 0 and 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        length = self.num_tokens(context.lengths)
        pieces = chunking.split_documents(documents.features["targets"], length)
        mask = rng.random(len(pieces.values), dtype=np.float32) < self.noise_density
        inputs, targets = _STYLES[self.style](rng, pieces, self._limited(pieces, mask, context), context)
        eos, start = context.special.eos, np.full(len(pieces.lengths), context.special.pad, np.int32)
        return Examples(ragged.append(inputs, eos), ragged.append(targets, eos), start)

    def _limited(self, pieces: Ragged, mask: np.ndarray, context: Context) -> np.ndarray:
        """The mask, without the noise for which there is no room in the targets or no sentinel."""
        if self.style in ("mass", "bert"):
            return mask
        room = most_noise(self.noise_density, self.num_tokens(context.lengths))
        places = np.cumsum(mask) + np.cumsum(masking.starts_of_spans(pieces.lengths, mask))
        before = np.concatenate([[0], places])[pieces.starts]
        used = places - np.repeat(before, pieces.lengths)
        return mask & (used <= 2 * room)

    def num_tokens(self, lengths: dict[str, int]) -> int:
        """The longest piece whose inputs and targets fit the rows, EOS included."""
        whole = self.style in ("mass", "bert")
        length = 2
        while self._fits(length + 1, lengths, whole):
            length += 1
        return length

    def _fits(self, length: int, lengths: dict[str, int], whole: bool) -> bool:
        num_targets = (length if whole else min(2 * most_noise(self.noise_density, length) + 1, 2 * length)) + 1
        if "inputs" in lengths:
            return length + 1 <= lengths["inputs"] and num_targets <= lengths["targets"]
        return length + 1 + num_targets <= lengths["targets"]

    def check(self, context: Context) -> None:
        length = self.num_tokens(context.lengths)
        if not self._fits(length, context.lengths, self.style in ("mass", "bert")):
            raise ValueError(f"lengths {context.lengths} cannot hold {length} tokens of {self}: make them longer")
        needed = {"unique_sentinels": most_noise(self.noise_density, length) + 1, "drop": 0}.get(self.style, 1)
        if needed > len(context.special.sentinels):
            raise ValueError(
                f"{length} tokens at noise_density {self.noise_density} can have {needed} spans, but the vocabulary "
                f"has {len(context.special.sentinels)} sentinels: add extra ids or use shorter rows"
            )
        if self.style == "bert":
            context.ordinary_ids()


def most_noise(density: float, length: int) -> int:
    """Noise tokens of a piece: the mean and six standard deviations, but no more than there are tokens."""
    return min(length, math.ceil(density * length + 6 * math.sqrt(density * (1 - density) * length)))


def _unique_sentinels(rng, pieces: Ragged, mask: np.ndarray, context: Context) -> tuple[Ragged, Ragged]:
    sentinels = np.array(context.special.sentinels, np.int32)
    return masking.spans_to_sentinels(pieces, mask, sentinels), masking.spans_to_sentinels(pieces, ~mask, sentinels)


def _drop(rng, pieces: Ragged, mask: np.ndarray, context: Context) -> tuple[Ragged, Ragged]:
    return replacing.dropped(pieces, mask), replacing.dropped(pieces, ~mask)


def _mass(rng, pieces: Ragged, mask: np.ndarray, context: Context) -> tuple[Ragged, Ragged]:
    return replacing.each_by(pieces, mask, context.special.sentinels[0]), pieces


def _bert(rng, pieces: Ragged, mask: np.ndarray, context: Context) -> tuple[Ragged, Ragged]:
    is_random = rng.random(len(mask)) < 0.1
    hidden = replacing.each_by(pieces, mask & ~is_random, context.special.sentinels[0])
    return replacing.by_random(rng, hidden, mask & is_random, context.ordinary_ids()), pieces


_STYLES = {"unique_sentinels": _unique_sentinels, "drop": _drop, "mass": _mass, "bert": _bert}
