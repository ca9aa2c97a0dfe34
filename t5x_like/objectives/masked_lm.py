"""Masked language modelling: some tokens are hidden, and predicted where they stood, from both sides.

  text      Thank you for unfold ##ing my map
  tokens    [CLS] Thank you [MASK] unfold ##ing my tree [SEP]
  targets               for                   map             (and a third one that was chosen, but left as it is)

  method                                            units   budget  ngrams              draw    random_ids
  BERT (arXiv:1810.04805)                           tokens  bert                        token   all
  BERT, whole words (released code)                 words   bert                        token   all
  RoBERTa (arXiv:1907.11692, fairseq)               tokens  roberta                     unit    text
  n-gram (ALBERT, arXiv:1909.11942)                 words   bert    (6/11, 3/11, 2/11)  token   all
  Hugging Face's DataCollatorForLanguageModeling    tokens  each                        token   all

units       tokens; words, as the pieces of the vocabulary tell; or segments, as the feature `segments` of the task
            tells (1 where a word begins: for Chinese, from a segmenter, `tasks/segment_text`)
budget      bert: min(max_predictions, max(1, round(rate * length))), [CLS] and [SEP] counted in the length; a word
            that is too long for what is left is passed over. roberta: rate * units, rounded at random. each: every unit
            is chosen with probability `rate`
draw        80 % mask, 10 % random, 10 % kept: drawn for each token, or once for a unit
random_ids  all of the vocabulary, as in BERT's code, or those of text
masks       dynamic: drawn afresh each time. static: a text has `duplicates` masks (BERT: 10), and each time one of them
"""

from typing import Literal

import attrs
import numpy as np

from t5x_like.data import choosing, chunking, ragged, replacing
from t5x_like.data.choosing import Units
from t5x_like.data.drawing import ByText, uniform
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor


@attrs.frozen(kw_only=True)
class MaskedLM(SeqioPreprocessor):
    rate: float = 0.15
    units: Literal["tokens", "words", "segments"] = "tokens"
    budget: Literal["bert", "roberta", "each"] = "bert"
    max_predictions: int | None = None
    ngrams: tuple[float, ...] = attrs.field(default=(), converter=lambda shares: tuple(map(float, shares)))
    draw: Literal["token", "unit"] = "token"
    masked: float = 0.8
    random: float = 0.1
    random_ids: Literal["all", "text"] = "all"
    documents: Literal["isolated", "concatenated"] = "isolated"
    masks: Literal["dynamic", "static"] = "dynamic"
    duplicates: int = 10

    def __attrs_post_init__(self):
        choices = {"units": _BEGINS, "budget": _BUDGETS, "draw": ("token", "unit"), "random_ids": ("all", "text")}
        choices |= {"documents": _CUTS, "masks": ("dynamic", "static")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r}: choose one of {sorted(allowed)}")
        check_shares(self.rate, self.masked, self.random)
        if self.ngrams and (self.budget != "bert" or self.masks == "static" or min(self.ngrams) < 0):
            raise ValueError(f"ngrams {self.ngrams} are shares of 1, 2, ... units, for budget 'bert' and dynamic masks")
        if self.masks == "static" and self.documents != "isolated":
            raise ValueError("static masks belong to a text, so it may not be cut anew each time: documents='isolated'")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("targets", "segments") if self.units == "segments" else ("targets",)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        room, special = context.lengths["targets"] - 2, context.special
        cut = {name: _CUTS[self.documents](feature, room) for name, feature in documents.features.items()}
        text = ragged.surround(cut["targets"], special.cls_token(), special.separator_token())
        begins = _BEGINS[self.units](text, cut, context)
        if self.masks == "dynamic":
            return self.hide(rng, text, choosing.inside(text), begins, context)
        own = ByText.of(text, rng.integers(self.duplicates, size=len(text.lengths)))
        return self.hide(own, text, choosing.inside(text), begins, context)

    def hide(
        self,
        rng: np.random.Generator | ByText,
        text: Ragged,
        candidates: np.ndarray,
        begins: np.ndarray | None,
        context: Context,
        **more,
    ) -> Side:
        """Chooses among the `candidates` [tokens] of the text and hides them; `more` are further arrays of the side."""
        units = choosing.find_units(text.lengths, candidates, begins)
        mask = units.mask(_BUDGETS[self.budget](self, rng, units, text.lengths))
        return Side.bidirectional(self.replaced(rng, text, mask, units, context), text.values, mask, **more)

    def replaced(self, rng, text: Ragged, mask: np.ndarray, units: Units, context: Context) -> Ragged:
        return replacing.bert_style(
            rng,
            text,
            mask,
            masked=self.masked,
            random=self.random,
            mask_token=context.special.mask_token(),
            allowed=context.ordinary_ids() if self.random_ids == "text" else np.arange(context.vocab_size),
            groups=units.of_token if self.draw == "unit" else None,
        )

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)
        if self.units == "words":
            context.begins_word()


def check_one_side(context: Context, *, least: int) -> None:
    """What predicts in place needs one side, and a mask token."""
    if "inputs" in context.lengths or context.lengths["targets"] < least:
        raise ValueError(f"lengths {context.lengths}: what predicts in place has targets alone, of at least {least}")
    context.special.mask_token()


def check_shares(rate: float, masked: float, random: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"rate {rate} is the share of tokens to predict: it must be between 0 and 1")
    if min(masked, random) < 0 or masked + random > 1:
        raise ValueError(f"masked {masked} and random {random} are shares: neither below 0, together at most 1")


def _bert(objective: MaskedLM, rng, units: Units, lengths: np.ndarray) -> np.ndarray:
    budgets = choosing.bert_budget(lengths, objective.rate, objective.max_predictions)
    if objective.ngrams:
        return choosing.ngrams_within_budget(rng, units, budgets, objective.ngrams)
    return choosing.units_within_budget(rng, units, budgets)


def _roberta(objective: MaskedLM, rng, units: Units, lengths: np.ndarray) -> np.ndarray:
    counts = choosing.stochastic_budget(rng, units.per_sequence(), objective.rate)
    return choosing.units_by_count(rng, units, counts)


def _each(objective: MaskedLM, rng, units: Units, lengths: np.ndarray) -> np.ndarray:
    return uniform(rng, units.sequence) < objective.rate


_BUDGETS = {"bert": _bert, "roberta": _roberta, "each": _each}
_CUTS = {"isolated": chunking.split_documents, "concatenated": chunking.concatenate_and_split}
_BEGINS = {
    "tokens": lambda text, cut, context: None,
    "words": lambda text, cut, context: context.begins_word()[text.values],
    "segments": lambda text, cut, context: ragged.surround(cut["segments"], 0, 0).values > 0,
}
