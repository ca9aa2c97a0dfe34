"""Autoregressive blank infilling (GLM, arXiv:2103.10360, section 2.1; the released blocklm_utils.py).

  text       x1 x2 x3 x4 x5 x6                                  spans: x3, and x5 x6
  part A     [CLS] x1 x2 [M] x4 [M] </s>                        sees all of itself
  part B     <sop> x5 x6   <sop> x3                             the spans in random order; sees A and what is before
  targets          x5 x6 <eop>    x3 <eop>
  positions  0 1 2 3 4 5 6   5 5 5   3 3                        B stands where its [M] is,
             0 0 0 0 0 0 0   1 2 3   1 2                        and counts inside its span

task      what is hidden                                                               token in its place
blank     spans of Poisson(3) tokens, at least 1 and at most 39, until they are        <mask>
          `rate` of the text or more; a token at least stands between two of them
sentence  whole sentences, until they are `rate` of the text or more                   <mark:smask>
document  one span to the end of the text, of min_share to all of its tokens           <mark:gmask>

Each text draws its task by `shares` (the released code draws one for a batch). The released base model has blanks
alone; its 10B model 0.5 blank, 0.3 sentence, 0.2 document with min_share 0.25 (the paper: 0.5). The vocabulary needs
<mark:sop> and <mark:eop>, and the model positions of two planes.
"""

import functools
import math

import attrs
import numpy as np

from t5x_like.data import chunking, pairing, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.masked_lm import check_one_side
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor

BLANK, SENTENCE, DOCUMENT = 0, 1, 2
LONGEST_SPAN = 39


@attrs.frozen(kw_only=True)
class BlankInfilling(SeqioPreprocessor):
    shares: tuple[float, float, float] = attrs.field(default=(1.0, 0.0, 0.0), converter=tuple)
    rate: float = 0.15
    mean_span: float = 3.0
    min_share: float = 0.5
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)

    def __attrs_post_init__(self):
        if len(self.shares) != 3 or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise ValueError(f"shares {self.shares} are those of blank, sentence and document: none may be negative")
        if not 0 < self.rate < 1 or not self.mean_span > 0 or not 0 < self.min_share <= 1:
            raise ValueError(f"{self}: rate is between 0 and 1, mean_span above 0, min_share above 0 and at most 1")
        if self.shares[SENTENCE] and not self.sentence_ends:
            raise ValueError("BlankInfilling.sentence_ends is empty, so no sentence ends: give the ids of full stops")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        pieces = chunking.split_documents(documents.features["targets"], self.num_tokens(context))
        task = rng.choice(3, size=len(pieces.lengths), p=np.array(self.shares) / sum(self.shares))
        spans = [self._blanks, self._sentences, self._documents]
        masks = np.array([_mask_token(context, k) if share else 0 for k, share in enumerate(self.shares)], np.int32)
        starts, lengths = np.zeros((2, 0), np.int64)
        for kind in np.unique(task):
            texts = np.flatnonzero(task == kind)
            first, size = spans[kind](rng, pieces, texts)
            starts, lengths = np.concatenate([starts, first]), np.concatenate([lengths, size])
        order = np.argsort(starts)
        return infill(pieces, starts[order], lengths[order], rng.random(len(order)), masks[task], context)

    def _blanks(self, rng: np.random.Generator, pieces: Ragged, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = pieces.lengths[texts]
        budget = (self.rate * sizes).astype(np.int64)
        most = int(budget.max(initial=0))
        drawn = np.searchsorted(_cumulative_poisson(self.mean_span), rng.random((len(texts), most)), side="right") + 1
        total = np.cumsum(drawn, axis=1)
        used = total - drawn < budget[:, None]
        # A short text may not hold what was drawn last, with a token between the spans.
        used &= total + np.arange(most) <= sizes[:, None]
        count = used.sum(axis=1)
        free = sizes - (drawn * used).sum(axis=1) - count + 1
        places = np.where(used, (rng.random((len(texts), most)) * (free[:, None] + 1)).astype(np.int64), 2**40)
        places = np.sort(places, axis=1) + np.cumsum((drawn + 1) * used, axis=1) - (drawn + 1) * used
        return (places + pieces.starts[texts][:, None])[used], drawn[used]

    def _sentences(self, rng: np.random.Generator, pieces: Ragged, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = ragged.take(pieces, texts)
        found = pairing.find_sentences(own, np.array(self.sentence_ends, np.int64))
        count = found.last_of - found.first_of
        text = np.repeat(np.arange(len(texts)), count)
        order = np.argsort(text + rng.random(len(text)))
        total = np.cumsum(found.lengths[order])
        before = total - found.lengths[order]
        begin = np.repeat(before[np.minimum(np.cumsum(count) - count, max(len(before) - 1, 0))], count)
        budget = (self.rate * own.lengths).astype(np.int64)
        chosen = np.sort(order[before - begin < np.maximum(budget, 1)[text]])
        moved = pieces.starts[texts] - own.starts
        return found.starts[chosen] + moved[text[chosen]], found.lengths[chosen]

    def _documents(self, rng: np.random.Generator, pieces: Ragged, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = pieces.lengths[texts]
        low = np.maximum((self.min_share * sizes).astype(np.int64), 1)
        hidden = rng.integers(low, sizes, endpoint=True)
        return pieces.starts[texts] + sizes - hidden, hidden

    def num_tokens(self, context: Context) -> int:
        """The longest text that fits a row however many spans it has: each costs two tokens, [CLS] and EOS two more."""
        room = context.lengths["targets"] - 2
        most = math.floor(room / (1 + 2 * self.rate))
        return most - 2 if self.shares != (1.0, 0.0, 0.0) else most

    def check(self, context: Context) -> None:
        check_one_side(context, least=16)
        for name in ("sop", "eop"):
            context.special.marker(name)
        for kind in np.flatnonzero(self.shares):
            _mask_token(context, kind)


def infill(
    text: Ragged, starts: np.ndarray, lengths: np.ndarray, keys: np.ndarray, masks: np.ndarray, context: Context
) -> Side:
    """Parts A and B of every text whose spans, ranges of its flat values in order, are hidden.

    keys    [spans]: of the spans of a text, that with the smallest key comes first in part B
    masks   [texts]: what stands in the place of its spans
    """
    num_texts, num_tokens = len(text.lengths), len(text.values)
    owner = np.searchsorted(np.cumsum(text.lengths), starts, side="right")
    # Part A: a span shrinks to its first token, which becomes the mask.
    change = np.zeros(num_tokens + 1, np.int64)
    np.add.at(change, starts, 1)
    np.add.at(change, starts + lengths, -1)
    shown = np.cumsum(change[:-1]) == 0
    shown[starts] = True
    values = text.values.copy()
    values[starts] = masks[owner]
    body = ragged.keep(Ragged(values, text.lengths), shown)
    part_a = ragged.surround(body, context.special.cls_token(), context.special.eos)
    before = np.cumsum(np.append(0, shown))  # shown tokens before each place of the text
    mask_places = before[starts] - before[text.starts[owner]] + 1
    # Part B: the spans by their keys, each with <sop> before it as what is read, <eop> behind it as what is told.
    order = np.lexsort((keys, owner))
    spans = ragged.gather(text.values, starts[order], lengths[order])
    read = ragged.join_pairs(_each(context.special.marker("sop"), len(order)), spans)
    told = ragged.append(spans, context.special.marker("eop"))
    sizes_b = np.bincount(owner, lengths + 1, num_texts).astype(np.int64)
    part_b = Ragged(read.values, sizes_b)
    tokens = ragged.join_pairs(part_a, part_b)
    in_b = ragged.index_within(tokens.lengths) >= np.repeat(part_a.lengths, tokens.lengths)
    targets = tokens.values.copy()
    first, second, attn_order = np.zeros((3, len(targets)), np.int32)
    targets[in_b] = told.values
    first[in_b] = np.repeat(mask_places[order], lengths[order] + 1)
    first[~in_b] = ragged.index_within(part_a.lengths)
    second[in_b] = ragged.index_within(read.lengths) + 1
    attn_order[in_b] = ragged.index_within(sizes_b) + 1
    return Side(
        tokens.values,
        targets,
        in_b.astype(np.float32),
        attn_order,
        tokens.lengths,
        positions=np.stack([first, second], axis=1),
    )


def _each(token: int, count: int) -> Ragged:
    return Ragged(np.full(count, token, np.int32), np.ones(count, np.int64))


def _mask_token(context: Context, kind: int) -> int:
    return context.special.mask_token() if kind == BLANK else context.special.marker(("", "smask", "gmask")[kind])


@functools.cache
def _cumulative_poisson(mean: float) -> np.ndarray:
    """Of the lengths 1 ... LONGEST_SPAN - 1; what is above all of them is the longest."""
    shares = np.cumprod(np.append(1.0, mean / np.arange(1, LONGEST_SPAN + 1)))[1:]
    return np.cumsum(shares)[:-1] / shares.sum()
