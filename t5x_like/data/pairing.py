"""Two texts side by side: which ones (next sentence, order of sentences), cut to fit a row, and framed.

  document  S1 S2 S3 S4      chunk S1 S2 S3, cut behind S2

  NEXT      [CLS] S1 S2 [SEP] S3 [SEP]          type_ids 0 0 0 0 1 1
  SWAPPED   [CLS] S3 [SEP] S1 S2 [SEP]
  RANDOM    [CLS] S1 S2 [SEP] T5 T6 [SEP]       of another document; S3 is used in the next chunk

The rules of BERT's and ALBERT's released create_pretraining_data: a chunk of whole sentences is gathered until it is
long enough, cut behind a random sentence of it, and the pair is shortened, the longer side first, at random ends. One
loop step makes the next chunk of all documents at once.
"""

from typing import NamedTuple

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.ragged import Ragged
from t5x_like.vocabularies.special_tokens import SpecialTokens

NEXT, SWAPPED, RANDOM = 0, 1, 2


class Sentences(NamedTuple):
    """Every sentence of some documents: int64 [sentences], places in their flat values.

    first_of, last_of   int64 [documents]: the sentences of a document are first ... last - 1
    """

    starts: np.ndarray
    lengths: np.ndarray
    first_of: np.ndarray
    last_of: np.ndarray

    @property
    def before(self) -> np.ndarray:
        """Tokens before each sentence, and behind the last one; int64 [sentences + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)])


class Pairs(NamedTuple):
    """Ranges of the documents' values, [pairs] each: left and right as they stand in the row, and their relation."""

    left_starts: np.ndarray
    left_lengths: np.ndarray
    right_starts: np.ndarray
    right_lengths: np.ndarray
    kinds: np.ndarray


def find_sentences(documents: Ragged, sentence_ends: np.ndarray) -> Sentences:
    """A sentence ends with a token of `sentence_ends` that another kind of token follows, or with its document."""
    is_end = np.isin(documents.values, sentence_ends)
    ends = is_end.copy()
    ends[:-1] &= ~is_end[1:]
    some = documents.lengths > 0
    ends[(documents.starts + documents.lengths - 1)[some]] = True
    stops = np.flatnonzero(ends) + 1
    lengths = np.diff(stops, prepend=0)
    last_of = np.searchsorted(stops, documents.starts + documents.lengths, side="right")
    first_of = np.searchsorted(stops, documents.starts, side="right")
    return Sentences(stops - lengths, lengths, first_of, last_of)


def pair_up(
    rng: np.random.Generator, sentences: Sentences, *, room: int, shares: tuple[float, ...], short: float
) -> Pairs:
    """Pairs of at most `room` tokens, of the kinds NEXT, SWAPPED and RANDOM by `shares`.

    A chunk of one sentence has nothing to come next, so its pair is RANDOM. With probability `short` a chunk is
    shorter: uniformly from 2 to `room` tokens.
    """
    before, cumulative = sentences.before, np.cumsum(shares)
    place, made = sentences.first_of.copy(), []
    active = np.flatnonzero(place < sentences.last_of)
    while len(active):
        n, begin, last = len(active), place[active], sentences.last_of[active]
        wanted = np.where(rng.random(n) < short, rng.integers(2, room, n, endpoint=True), room)
        end = np.minimum(np.searchsorted(before, before[begin] + wanted), last)
        cut = np.where(end - begin > 1, begin + 1 + (rng.random(n) * (end - begin - 1)).astype(np.int64), end)
        kinds = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
        kinds = np.where(end - begin > 1, kinds, RANDOM)
        is_random = kinds == RANDOM
        right, right_end = cut.copy(), end.copy()
        right[is_random], right_end[is_random] = _of_another_document(
            rng, sentences, active[is_random], (wanted - before[cut] + before[begin])[is_random]
        )
        made.append(np.stack([before[begin], before[cut], before[right], before[right_end], kinds]))
        place[active] = np.where(is_random, cut, end)
        active = active[place[active] < last]
    begin, cut, right, right_end, kinds = np.concatenate([np.zeros((5, 0), np.int64), *made], axis=1)
    a = shortened(rng, begin, cut - begin, right, right_end - right, room)
    swapped = kinds == SWAPPED
    return Pairs(*(np.where(swapped, a[(i + 2) % 4], a[i]) for i in range(4)), kinds)


def _of_another_document(
    rng: np.random.Generator, sentences: Sentences, own: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(first, last + 1) of sentences from a random one of a random other document, until there are `wanted` tokens.

    Where there is no other document with a sentence it is the own one, as when BERT's ten tries fail.
    """
    full = np.flatnonzero(sentences.last_of > sentences.first_of)
    if not len(full):
        return own, own
    rank = np.searchsorted(full, own)
    other = full[(rank + 1 + (rng.random(len(own)) * max(len(full) - 1, 1)).astype(np.int64)) % len(full)]
    first, last = sentences.first_of[other], sentences.last_of[other]
    begin = first + (rng.random(len(own)) * (last - first)).astype(np.int64)
    end = np.searchsorted(sentences.before, sentences.before[begin] + np.maximum(wanted, 1))
    return begin, np.minimum(end, last)


def shortened(rng, left, left_lengths, right, right_lengths, room: int) -> tuple[np.ndarray, ...]:
    """(starts and lengths) of both sides, together at most `room`: the longer one loses tokens first, at random ends.

    BERT's truncate_seq_pair; where both are equally long the second one is next.
    """
    excess = np.maximum(left_lengths + right_lengths - room, 0)
    longer = np.minimum(excess, np.abs(left_lengths - right_lengths))
    both = excess - longer
    from_left = np.where(left_lengths > right_lengths, longer, 0) + both // 2
    from_right = np.where(left_lengths > right_lengths, 0, longer) + both - both // 2
    at_left, at_right = rng.binomial(from_left, 0.5), rng.binomial(from_right, 0.5)
    return left + at_left, left_lengths - from_left, right + at_right, right_lengths - from_right


class Framed(NamedTuple):
    """[CLS] left [SEP] right [SEP]; type_ids int32 and candidates bool (no special token) are flat over `text`."""

    text: Ragged
    type_ids: np.ndarray
    candidates: np.ndarray


def frame(values: np.ndarray, pairs: Pairs, special: SpecialTokens) -> Framed:
    lengths = pairs.left_lengths + pairs.right_lengths + 3
    within = ragged.index_within(lengths)
    left = np.repeat(pairs.left_lengths, lengths)
    type_ids = (within > left + 1).astype(np.int32)
    candidates = (within > 0) & (within != left + 1) & (within != np.repeat(lengths - 1, lengths))
    text = np.full(len(within), special.separator_token(), np.int32)
    text[within == 0] = special.cls_token()
    both = np.stack([pairs.left_starts, pairs.right_starts], axis=1).ravel()
    text[candidates] = ragged.gather(
        values, both, np.stack([pairs.left_lengths, pairs.right_lengths], 1).ravel()
    ).values
    return Framed(Ragged(text, lengths), type_ids, candidates)


def at_first_token(lengths: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A flat int32 array with labels[i] at the first token of example i and 0 elsewhere."""
    flat = np.zeros(lengths.sum(), np.int32)
    flat[np.cumsum(lengths) - lengths] = labels
    return flat


def cut_sentences(lengths: np.ndarray, document: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens of each, its document): sentences longer than `room` cut into several, the last of them shorter."""
    num_pieces = -(-lengths // room)
    pieces = np.full(num_pieces.sum(), room, np.int64)
    pieces[np.cumsum(num_pieces) - 1] = lengths - (num_pieces - 1) * room
    return pieces, np.repeat(document, num_pieces)


def group_sentences(costs: np.ndarray, document: np.ndarray, room: int, most: int | None = None) -> np.ndarray:
    """How many sentences there are up to the end of each group, int64 [groups].

    A group is sentences of one document, one after another while their costs fit into `room`, and `most` at most. No
    cost is above `room`. One loop step ends a group of every document.
    """
    before = np.concatenate([[0], np.cumsum(costs)])
    last_of = np.searchsorted(document, np.arange(document.max(initial=-1) + 1), side="right")
    place = np.searchsorted(document, np.arange(len(last_of)))
    active, ends = np.flatnonzero(place < last_of), [np.zeros(0, np.int64)]
    while len(active):
        end = np.searchsorted(before, before[place[active]] + room, side="right") - 1
        end = np.minimum(end, last_of[active])
        place[active] = end if most is None else np.minimum(end, place[active] + most)
        ends.append(place[active])
        active = active[place[active] < last_of[active]]
    return np.sort(np.concatenate(ends))
