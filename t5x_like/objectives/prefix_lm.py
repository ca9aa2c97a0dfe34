"""Prefix language modelling (T5, arXiv:1910.10683, section 3.2.1; released code `prefix_lm`).

  tokens   Thank you for inviting me to your party
  inputs   Thank you for </s>
  targets  inviting me to your party </s>

The cut is uniform over the piece for noise_density 0.5; 0.25 makes the targets a quarter of it on average, which is
UL2's S-denoiser. Documents are cut to pieces but never joined.
"""

import attrs
import numpy as np

from t5x_like.data import chunking, masking, ragged
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class PrefixLM(SeqioPreprocessor):
    noise_density: float = 0.5

    def __attrs_post_init__(self):
        if not 0 < self.noise_density <= 0.5:
            raise ValueError(f"noise_density {self.noise_density} must be above 0 and at most 0.5")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        pieces = chunking.split_documents(documents.features["targets"], self.num_tokens(context.lengths))
        num_prefix = masking.random_prefix(rng, pieces.lengths, density=self.noise_density)
        return self.examples_of(pieces, num_prefix, context)

    def examples_of(self, pieces: Ragged, num_prefix: np.ndarray, context: Context) -> Examples:
        """Both sides of pieces that are cut behind `num_prefix` [n] tokens."""
        eos, start = context.special.eos, np.full(len(pieces.lengths), context.special.pad, np.int32)
        inputs = ragged.gather(pieces.values, pieces.starts, num_prefix)
        targets = ragged.gather(pieces.values, pieces.starts + num_prefix, pieces.lengths - num_prefix)
        return Examples(ragged.append(inputs, eos), ragged.append(targets, eos), start)

    def num_tokens(self, lengths: dict[str, int]) -> int:
        """The longest piece that fits however it is cut, the EOS of both sides included."""
        return min(lengths.values()) - (1 if "inputs" in lengths else 2)

    def check(self, context: Context) -> None:
        if self.num_tokens(context.lengths) < 2:
            raise ValueError(f"lengths {context.lengths} leave no room for a prefix and a suffix: make them longer")
