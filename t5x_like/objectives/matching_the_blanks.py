"""Matching the blanks (arXiv:1906.03158, section 4): do two statements relate the same two entities?

  [CLS] [E1] [BLANK] [/E1] , known for [E2] Harry Potter [/E2] , was born in Yate . [SEP]
  [CLS] [E1] J . K . Rowling [/E1] wrote [E2] [BLANK] [/E2] in Edinburgh . [SEP]               the same: 1

A statement is the text around two neighbouring mentions of different entities (the feature `entities`, see
data/mentions.py), at most `max_distance` tokens apart and `text_length` long, with each mention blanked with
probability 0.7. Two statements of the same pair stand side by side, out of each other's sight. The loss is that of
p(same) = sigmoid(r . r') over all pairs of statements of the batch; same and different pairs are a mean each, so that
they weigh the same (the paper samples them so), and all of it stands beside masked tokens. (The paper's formula prints
1 / (1 + exp(r . r')), whose sign is a slip.) `contrast_matches` is the softmax that released code has in its place. The
vocabulary needs <mark:e1>, <mark:/e1>, <mark:e2>, <mark:/e2> and <mark:blank>.
"""

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.data import mentions, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.masked_lm import MaskedLM, check_one_side
from t5x_like.objectives.next_sentence import as_mask, check_mask, check_share
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import aux_of, head_of

MARKERS = ("e1", "/e1", "e2", "/e2", "blank")


@attrs.frozen(kw_only=True)
class MatchingTheBlanks(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=MaskedLM, converter=as_mask)
    blank_share: float = 0.7
    max_distance: int = 40

    reads = ("targets", "entities")

    def __attrs_post_init__(self):
        check_mask(self.mask)
        check_share("blank_share", self.blank_share)
        if self.max_distance < 1:
            raise ValueError(f"max_distance {self.max_distance} must be at least 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        text = documents.features["targets"]
        found = mentions.find_mentions(documents.features["entities"])
        first = self.neighbours(found, context)
        statements = self.statements(rng, text, found, first, context)
        pair = found.entity[first] * 65_537 + found.entity[first + 1]
        order = np.argsort(pair, kind="stable")  # statements of a pair side by side, two and two
        place = ragged.index_within(np.unique(pair, return_counts=True)[1]) % 2
        statements, pair = ragged.take(statements, order), pair[order]
        special = [context.special.marker(name) for name in MARKERS]
        special += [context.special.cls_token(), context.special.separator_token()]
        candidates = ~np.isin(statements.values, special)
        begins = context.begins_word()[statements.values] if self.mask.units == "words" else None
        side = self.mask.hide(rng, statements, candidates, begins, context)
        heads = np.flatnonzero(side.targets == context.special.marker("e1"))
        tails = np.flatnonzero(side.targets == context.special.marker("e2"))
        relation, tail = np.zeros((2, len(side.tokens)), np.int32)
        relation[heads], tail[heads] = pair % (2**31 - 2) + 1, tails - heads
        return side._replace(
            lengths=np.bincount(np.cumsum(place == 0) - 1, statements.lengths).astype(np.int64),
            positions=ragged.index_within(statements.lengths).astype(np.int32)[:, None],
            parts=np.repeat(place, statements.lengths).astype(np.int32),
            aux={"relation": relation, "relation_tail": tail},
        )

    def text_length(self, context: Context) -> int:
        """Tokens of a statement: two of them fit a row."""
        return context.lengths["targets"] // 2

    def neighbours(self, found: mentions.Mentions, context: Context) -> np.ndarray:
        """The first of every two neighbouring mentions that make a statement."""
        a, b = np.arange(len(found.starts) - 1), np.arange(1, len(found.starts))
        distance = found.starts[b] - found.starts[a] - found.lengths[a]
        whole = found.lengths[a] + distance + found.lengths[b]
        fits = (distance <= self.max_distance) & (whole <= self.text_length(context) - 6)
        return a[fits & (found.sequence[a] == found.sequence[b]) & (found.entity[a] != found.entity[b])]

    def statements(self, rng, text: Ragged, found: mentions.Mentions, first: np.ndarray, context: Context) -> Ragged:
        """[CLS] left [E1] a [/E1] between [E2] b [/E2] right [SEP] of every two mentions, as long as there is room."""
        special, second = context.special, first + 1
        pool = [special.cls_token(), *(special.marker(name) for name in MARKERS), special.separator_token()]
        cls, e1, end1, e2, end2, blank, separator = len(text.values) + np.arange(len(pool))
        starts, lengths = found.starts[[first, second]], found.lengths[[first, second]]
        ends = starts + lengths
        is_blank = rng.random(lengths.shape) < self.blank_share
        begin, end = text.starts[found.sequence[first]], (text.starts + text.lengths)[found.sequence[first]]
        room = self.text_length(context) - 6 - (ends[1] - starts[0])
        left = np.minimum(np.maximum(room // 2, room - (end - ends[1])), starts[0] - begin)
        right = np.minimum(room - left, end - ends[1])
        shown = np.where(is_blank, blank, starts), np.where(is_blank, 1, lengths)
        one = np.ones_like(first)
        ranges = [(cls, 1), (starts[0] - left, left), (e1, 1), (shown[0][0], shown[1][0]), (end1, 1)]
        ranges += [(ends[0], starts[1] - ends[0]), (e2, 1), (shown[0][1], shown[1][1]), (end2, 1)]
        ranges += [(ends[1], right), (separator, 1)]
        both = [np.stack([one * part[i] for part in ranges], axis=1).ravel() for i in range(2)]
        pieces = ragged.gather(np.concatenate([text.values, np.array(pool, np.int32)]), *both)
        return ragged.join(pieces, len(ranges))

    def check(self, context: Context) -> None:
        check_one_side(context, least=32)
        self.mask.check(context)
        for name in MARKERS:
            context.special.marker(name)


def match_relations(model, x_BLD: jax.Array, batch: Features, *, per_row: int = 8) -> dict[str, Term]:
    """-log sigmoid(r . r') over the pairs of statements of the batch that relate the same entities.

    By the head "relation"; per_row is the most statements of a row that take part. "accuracy": how often r . r' > 0.
    """
    logits_NN, same_NN, pairs_NN = relation_products(model, x_BLD, batch, per_row)
    return _judged(jax.nn.softplus(-logits_NN), logits_NN > 0, pairs_NN & same_NN)


def tell_relations_apart(model, x_BLD: jax.Array, batch: Features, *, per_row: int = 8) -> dict[str, Term]:
    """-log(1 - sigmoid(r . r')) over the pairs of statements that do not; as `match_relations`."""
    logits_NN, same_NN, pairs_NN = relation_products(model, x_BLD, batch, per_row)
    return _judged(jax.nn.softplus(logits_NN), logits_NN < 0, pairs_NN & ~same_NN)


def contrast_matches(model, x_BLD: jax.Array, batch: Features, *, per_row: int = 8) -> dict[str, Term]:
    """The softmax form of released code (google-research/language, mention_losses.mtb_loss) in place of both above.

    -log(e^p / (e^p + sum of e^n)) of every statement that has another of the same pair (p = r . r') and one of a
    different one (n, over all of these): a mean over its p, then over statements.
    "accuracy": how often a p is above every n.
    """
    logits_NN, same_NN, pairs_NN = relation_products(model, x_BLD, batch, per_row)
    right_NN, wrong_NN = pairs_NN & same_NN, pairs_NN & ~same_NN
    others_NN = jnp.where(wrong_NN, logits_NN, -1e30)
    wrong_N1 = jax.nn.logsumexp(others_NN, axis=1, keepdims=True)
    counts_N = right_NN.any(axis=1) & wrong_NN.any(axis=1)
    share_NN = (right_NN & counts_N[:, None]) / jnp.maximum(right_NN.sum(axis=1, keepdims=True), 1)
    loss_NN = jax.nn.softplus(wrong_N1 - logits_NN)
    weight = counts_N.sum().astype(jnp.float32)
    accuracy = Term((share_NN * (logits_NN > others_NN.max(axis=1, keepdims=True))).sum(), weight)
    return {"loss": Term((share_NN * loss_NN).sum(), weight), "accuracy": accuracy}


def relation_products(model, x_BLD: jax.Array, batch: Features, per_row: int):
    """(r . r', are both of the same pair, do they count), [N, N] over all statements of the batch."""
    relation_BL, tail_BL = aux_of(batch, "relation"), aux_of(batch, "relation_tail")
    _, heads_BS = jax.lax.top_k((relation_BL > 0).astype(jnp.int32), min(per_row, relation_BL.shape[1]))
    tails_BS = heads_BS + jnp.take_along_axis(tail_BL, heads_BS, axis=1)
    r_BSW = head_of(model, "relation", "RelationHead")(x_BLD, heads_BS, tails_BS)
    r_NW, pair_N = r_BSW.reshape(-1, r_BSW.shape[-1]), jnp.take_along_axis(relation_BL, heads_BS, axis=1).ravel()
    counts_NN = (pair_N > 0)[:, None] & (pair_N > 0)[None] & ~jnp.eye(len(pair_N), dtype=bool)
    return r_NW @ r_NW.T, pair_N[:, None] == pair_N[None], counts_NN


def _judged(loss_NN: jax.Array, right_NN: jax.Array, counts_NN: jax.Array) -> dict[str, Term]:
    weight = counts_NN.sum().astype(jnp.float32)
    loss, right = (jnp.where(counts_NN, x_NN, 0.0).sum() for x_NN in (loss_NN, right_NN.astype(jnp.float32)))
    return {"loss": Term(loss, weight), "accuracy": Term(right, weight)}
