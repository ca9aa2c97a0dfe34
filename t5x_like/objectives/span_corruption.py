"""Span corruption (T5, arXiv:1910.10683, section 3.1.4).

  tokens   Thank you for inviting me to your party last week
  inputs   Thank you <s0> me to your party <s1> </s>
  targets  <s0> for inviting <s1> last week </s>

As in the released code, a text begins with a kept span and ends with a corrupted one, and the targets carry no final
sentinel; `closing_sentinel=True` is the figure of the paper, whose targets end with the next one: "... last week <s2>".
`random_roll=True`, an option of the released code, turns the noise of each text by a random number of places, so that a
text may begin with noise (whose targets then come before the first sentinel) and end in the middle of a span. Documents
are joined without separators and cut so that a row of inputs is exactly full: 512 inputs come from 568 tokens and give
114 targets.
"""

import functools

import attrs
import numpy as np

from t5x_like.data import chunking, masking, ragged
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class SpanCorruption(SeqioPreprocessor):
    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0
    random_roll: bool = False
    closing_sentinel: bool = False

    def __attrs_post_init__(self):
        if not 0 < self.noise_density < 1 or not self.mean_noise_span_length >= 1:
            raise ValueError(f"{self}: noise_density must be between 0 and 1, mean_noise_span_length at least 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        pieces = chunking.concatenate_and_split(documents.features["targets"], self.num_tokens(context.lengths))
        return self.examples_of(pieces, self.noise(rng, pieces.lengths), context)

    def noise(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        """Which tokens of texts of `lengths` are hidden, a flat mask."""
        mask = masking.random_spans(rng, lengths, density=self.noise_density, mean_span=self.mean_noise_span_length)
        return masking.random_roll(rng, lengths, mask) if self.random_roll else mask

    def examples_of(self, pieces: Ragged, mask: np.ndarray, context: Context) -> Examples:
        """Both sides of pieces whose noise is given."""
        sentinels = np.array(context.special.sentinels, np.int32)
        inputs = masking.spans_to_sentinels(pieces, mask, sentinels)
        targets = masking.spans_to_sentinels(pieces, ~mask, sentinels)
        if self.closing_sentinel:
            targets = ragged.join_pairs(targets, masking.next_sentinels(pieces.lengths, mask, sentinels))
        eos, start = context.special.eos, np.full(len(pieces.lengths), context.special.pad, np.int32)
        return Examples(ragged.append(inputs, eos), ragged.append(targets, eos), start)

    def num_tokens(self, lengths: dict[str, int]) -> int:
        """The longest text whose corruption fits the rows, EOS included (T5's random_spans_helper)."""
        return _longest_text(self, lengths.get("inputs"), lengths["targets"])

    def num_inputs_and_targets(self, num_tokens: int) -> tuple[int, int]:
        """Lengths after corruption of `num_tokens` tokens: one sentinel per span on both sides, and EOS."""
        noise, spans = masking.noise_counts(num_tokens, self.noise_density, self.mean_noise_span_length)
        spans += self.random_roll  # one that is turned over the end of the text becomes two
        return num_tokens - noise + spans + 1, noise + spans + 1 + self.closing_sentinel

    def check(self, context: Context) -> None:
        """Raises when a full row could need more sentinels than the vocabulary has, or more targets than a row has."""
        self.check_sentinels(context)
        if "inputs" not in context.lengths:
            return
        longest = self.num_tokens(context.lengths)
        alone = _longest_text(self, context.lengths["inputs"], None)
        if longest < alone - (self.noise_density == 0.5):  # where T5's helper too leaves one token out
            inputs, targets = self.num_inputs_and_targets(alone)
            raise ValueError(
                f"lengths {context.lengths}: {inputs} inputs come from {alone} tokens, whose targets need {targets}; "
                f"set targets to {targets}"
            )

    def check_sentinels(self, context: Context) -> None:
        longest = self.num_tokens(context.lengths)
        _, spans = masking.noise_counts(longest, self.noise_density, self.mean_noise_span_length)
        spans += self.random_roll + self.closing_sentinel
        if spans > len(context.special.sentinels):
            raise ValueError(
                f"{longest} tokens at noise_density {self.noise_density} and mean_noise_span_length "
                f"{self.mean_noise_span_length} have {spans} spans, but the vocabulary has "
                f"{len(context.special.sentinels)} sentinels: add extra ids, use longer spans or shorter rows"
            )


@functools.lru_cache
def _longest_text(objective: SpanCorruption, max_inputs: int | None, max_targets: int | None) -> int:
    """Without `max_inputs` both sides share a row of `max_targets`; without `max_targets` only inputs are limited."""

    def fits(num_tokens: int) -> bool:
        num_inputs, num_targets = objective.num_inputs_and_targets(num_tokens)
        if max_inputs is None:
            return num_inputs + num_targets <= max_targets
        return num_inputs <= max_inputs and (max_targets is None or num_targets <= max_targets)

    num_tokens = 2
    while fits(num_tokens + 1):  # both lengths grow with the text, so the first that does not fit is the end
        num_tokens += 1
    if not fits(num_tokens):
        raise ValueError(f"rows of {max_inputs} inputs and {max_targets} targets cannot hold 2 tokens of {objective}")
    return num_tokens
