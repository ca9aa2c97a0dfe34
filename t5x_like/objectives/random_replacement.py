"""Random replacement: wrong tokens among right ones, and nothing that shows where.

T5's released noise_token_to_random_token and noise_token_to_gathered_token (the paper has them only beside masks).

  tokens   Thank you for inviting me to your party
  inputs   Thank you tree inviting me to party party </s>
  targets  Thank you for inviting me to your party </s>

`source` is where wrong tokens come from: the "vocabulary", uniformly and without special tokens (T5's code may draw
sentinels too), or the "sequence" itself.
"""

from typing import Literal

import attrs
import numpy as np

from t5x_like.data import chunking, ragged, replacing
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class RandomReplacement(SeqioPreprocessor):
    noise_density: float = 0.15
    source: Literal["vocabulary", "sequence"] = "vocabulary"

    def __attrs_post_init__(self):
        if self.source not in _SOURCES:
            raise ValueError(f"source {self.source!r}: choose one of {sorted(_SOURCES)}")
        if not 0 < self.noise_density < 1:
            raise ValueError(f"noise_density {self.noise_density} must be between 0 and 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        pieces = chunking.split_documents(documents.features["targets"], chunking.whole_on_both_sides(context.lengths))
        mask = rng.random(len(pieces.values)) < self.noise_density
        inputs = _SOURCES[self.source](rng, pieces, mask, context)
        eos, start = context.special.eos, np.full(len(pieces.lengths), context.special.pad, np.int32)
        return Examples(ragged.append(inputs, eos), ragged.append(pieces, eos), start)

    def check(self, context: Context) -> None:
        chunking.whole_on_both_sides(context.lengths)
        if self.source == "vocabulary":
            context.ordinary_ids()


_SOURCES = {
    "vocabulary": lambda rng, pieces, mask, context: replacing.by_random(rng, pieces, mask, context.ordinary_ids()),
    "sequence": lambda rng, pieces, mask, context: replacing.by_own(rng, pieces, mask),
}
