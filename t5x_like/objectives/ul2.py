"""UL2's mixture of denoisers (arXiv:2205.05131, table 1 and section 3.1): each example says with its first token which.

  R   regular     inputs  <mode:R> Thank you <s0> me to your party <s1> </s>   targets  <s0> for inviting <s1> last </s>
  X   extreme     the same with longer spans or half of the tokens hidden
  S   sequential  inputs  <mode:S> Thank you for inviting </s>                 targets  me to your party last week </s>

A denoiser is (mode, mean span, density, rate); a mean span of 0 is one span at the end, drawn like a prefix LM's. The
defaults are table 1 with uniform rates, as the appendix has them. The appendix calls S with density 0.5 instead of the
table's 0.25: write ("S", 0, 0.5, rate) for that. One span of 64 among 600 tokens always stands at their end, as a text
ends with noise: `random_roll=True` turns it to anywhere (see SpanCorruption). UL2R (arXiv:2210.11399) is S
0.5, R 0.25, X 0.25.

A mode is one item of the vocabulary (`<mode:R>`), and its place is part of the row: the appendix prepends it after the
lengths are computed. Text is one stream of joined documents, as there; each draw takes as much of it as its row holds.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import attrs
import numpy as np

from t5x_like.data import masking, ragged
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.span_corruption import SpanCorruption

TABLE_1 = (
    ("R", 3.0, 0.15, 1.0),
    ("R", 8.0, 0.15, 1.0),
    ("S", 0.0, 0.25, 1.0),
    ("X", 3.0, 0.5, 1.0),
    ("X", 8.0, 0.5, 1.0),
    ("X", 64.0, 0.15, 1.0),
    ("X", 64.0, 0.5, 1.0),
)


def _tuples(denoisers) -> tuple[tuple[str, float, float, float], ...]:
    return tuple((str(mode), float(span), float(density), float(rate)) for mode, span, density, rate in denoisers)


@attrs.frozen(kw_only=True)
class UL2(SeqioPreprocessor):
    denoisers: tuple[tuple[str, float, float, float], ...] = attrs.field(default=TABLE_1, converter=_tuples)
    random_roll: bool = False

    def __attrs_post_init__(self):
        if not self.denoisers or min(rate for *_, rate in self.denoisers) <= 0:
            raise ValueError(f"denoisers {self.denoisers}: give at least one, each with a rate above 0")
        self.parts()

    def parts(self) -> list[SpanCorruption | PrefixLM]:
        """The objective behind each denoiser."""
        return [_part(span, density, self.random_roll) for _, span, density, _ in self.denoisers]

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        text, inside = documents.features["targets"].values, _without_mode(context)
        sizes = np.array([part.num_tokens(inside.lengths) for part in self.parts()])
        kinds, lengths = self._cut(rng, len(text), sizes)
        pieces, made = Ragged(text, lengths), []
        for kind, part in enumerate(self.parts()):
            # Each part gets the whole pieces of its own kind, which it cuts no further.
            own = ragged.take(pieces, np.flatnonzero(kinds == kind))
            if len(own.lengths):
                examples = _KINDS[type(part)].corrupt(part, rng, own, inside)
                mode = context.special.modes[self.denoisers[kind][0]]
                made.append(examples._replace(inputs=_prepend(examples.inputs, mode)))
        start = np.full(len(lengths), context.special.pad, np.int32)
        empty = Ragged(np.zeros(0, np.int32), np.zeros(0, np.int64))
        return Examples(
            ragged.concatenate([empty, *(examples.inputs for examples in made)]),
            ragged.concatenate([empty, *(examples.targets for examples in made)]),
            start,
        )

    def _cut(self, rng: np.random.Generator, num_tokens: int, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws denoisers until they have used up the text: (which one, how many tokens) for every piece."""
        rates = np.array([rate for *_, rate in self.denoisers])
        kinds = rng.choice(len(sizes), size=num_tokens // int(sizes.min()) + 1, p=rates / rates.sum())
        ends = np.cumsum(sizes[kinds])
        count = int(np.searchsorted(ends, num_tokens)) + 1 if num_tokens else 0
        lengths = np.diff(np.minimum(ends[:count], num_tokens), prepend=0)
        return kinds[:count], lengths

    def check(self, context: Context) -> None:
        for mode, *_ in self.denoisers:
            if mode not in context.special.modes:
                raise ValueError(
                    f"mode {mode!r} is not an item of the vocabulary, whose modes are {sorted(context.special.modes)}: "
                    f"train the tokenizer with the control piece <mode:{mode}>, or extend it"
                )
        for part in self.parts():
            _KINDS[type(part)].check(part, _without_mode(context))


@functools.lru_cache
def _part(mean_span: float, density: float, random_roll: bool) -> SpanCorruption | PrefixLM:
    if mean_span == 0:
        return PrefixLM(noise_density=density)
    return SpanCorruption(noise_density=density, mean_noise_span_length=mean_span, random_roll=random_roll)


def _without_mode(context: Context) -> Context:
    """The mode takes one place of the inputs, or of a row that both sides share."""
    side = "inputs" if "inputs" in context.lengths else "targets"
    return context._replace(lengths=context.lengths | {side: context.lengths[side] - 1})


def _prepend(inputs: Ragged, token: int) -> Ragged:
    alone = Ragged(np.full(len(inputs.lengths), token, np.int32), np.ones_like(inputs.lengths))
    return ragged.join_pairs(alone, inputs)


def _spans(part: SpanCorruption, rng, pieces: Ragged, context: Context) -> Examples:
    return part.examples_of(pieces, part.noise(rng, pieces.lengths), context)


def _prefix(part: PrefixLM, rng, pieces: Ragged, context: Context) -> Examples:
    return part.examples_of(pieces, masking.random_prefix(rng, pieces.lengths, density=part.noise_density), context)


class _Kind(NamedTuple):
    corrupt: Callable
    check: Callable


# A row of the mixture is as long as the longest denoiser needs: that others do not fill their targets is no mistake.
_KINDS = {
    SpanCorruption: _Kind(_spans, SpanCorruption.check_sentinels),
    PrefixLM: _Kind(_prefix, PrefixLM.check),
}
