"""Relation discrimination (ERICA, arXiv:2012.15022, section 3.3): pairs of entities in the same relation are alike.

  text        [CLS] Yate lies in England . J . K . Rowling was born there . [SEP]
  entities          2    0    0  4       0 6 7 7 7 7       0   0    0     0        (see data/mentions.py)
  relations                      a         b                                        a: (Yate, part of, England)

The feature `relations` holds at the first token of a mention 1 + relation * 65536 + head entity, where the mention is
the tail, and 0 elsewhere (facts found by distant supervision, in `prepare`). An entity is the mean of the states of its
first mention in the text, a pair is [head; tail], and every two pairs of one relation, anywhere in the batch, are told
from all others by a softmax of cosines over a temperature of 0.05. Beside it stand masked tokens, of which none belongs
to an entity. ERICA's other task is `entity_discrimination`.
"""

from typing import NamedTuple

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.data import choosing, chunking, mentions, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.mentions import Mentions
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.masked_lm import MaskedLM, check_one_side
from t5x_like.objectives.next_sentence import as_mask, check_mask
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import aux_of

HEADS = 65_536


class Facts(NamedTuple):
    """int64 [facts]: numbers of mentions, and the relation."""

    heads: np.ndarray
    tails: np.ndarray
    relations: np.ndarray


def known_facts(found: Mentions, relations: np.ndarray) -> Facts:
    """The facts whose head is mentioned in the text of their tail; a head is its entity's first mention there."""
    tails = np.flatnonzero((relations[found.starts] > 0) & (found.entity > 0))
    value = relations[found.starts[tails]].astype(np.int64) - 1
    key = found.sequence * HEADS + found.entity
    order = np.argsort(key, kind="stable")  # the first mention of each entity of each text comes first
    wanted = found.sequence[tails] * HEADS + value % HEADS
    place = np.minimum(np.searchsorted(key[order], wanted), max(len(order) - 1, 0))
    head = order[place] if len(order) else place
    known = key[head] == wanted if len(order) else np.zeros(0, bool)
    return Facts(head[known], tails[known], value[known] // HEADS)


@attrs.frozen(kw_only=True)
class RelationContrast(SeqioPreprocessor):
    mask: MaskedLM = attrs.field(factory=MaskedLM, converter=as_mask)

    reads = ("targets", "entities", "relations")

    def __attrs_post_init__(self):
        check_mask(self.mask)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        special, room = context.special, context.lengths["targets"] - 2
        cut = {name: chunking.split_documents(documents.features[name], room) for name in self.reads}
        text = ragged.surround(cut["targets"], special.cls_token(), special.separator_token())
        entities = ragged.surround(cut["entities"], 0, 0)
        relations = ragged.surround(cut["relations"], 0, 0).values
        candidates = choosing.inside(text) & (entities.values < 2)
        begins = context.begins_word()[text.values] if self.mask.units == "words" else None
        return self.mask.hide(rng, text, candidates, begins, context, aux=self.facts(entities, relations))

    def facts(self, entities: Ragged, relations: np.ndarray) -> dict[str, np.ndarray]:
        """At a tail: "relation" (1 + its number), "relation_head" (how far the head is); "mention" (tokens) at both."""
        found = mentions.find_mentions(entities)
        aux = {name: np.zeros(len(relations), np.int32) for name in ("relation", "relation_head", "mention")}
        aux["mention"][found.starts] = found.lengths
        known = known_facts(found, relations)
        tails = found.starts[known.tails]
        aux["relation"][tails] = known.relations + 1
        aux["relation_head"][tails] = found.starts[known.heads] - tails
        return aux

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)
        self.mask.check(context)


def contrast_relations(
    model, x_BLD: jax.Array, batch: Features, *, temperature: float = 0.05, per_row: int = 8
) -> dict[str, Term]:
    """-log softmax of cosine / temperature, a mean over the ordered pairs of facts of one relation in the batch.

    per_row   most facts of a row that take part
    "recall": how often the nearest other fact is of the same relation, among those that have one.
    """
    relation_BL, head_BL, length_BL = (aux_of(batch, n) for n in ("relation", "relation_head", "mention"))
    _, tails_BS = jax.lax.top_k((relation_BL > 0).astype(jnp.int32), min(per_row, relation_BL.shape[1]))

    def at_tail(array_BL):
        return jnp.take_along_axis(array_BL, tails_BS, axis=1)

    sums_BLD = jnp.cumsum(jnp.pad(x_BLD.astype(jnp.float32), ((0, 0), (1, 0), (0, 0))), axis=1)

    def mean_of_mention(starts_BS):
        length_BS = jnp.maximum(jnp.take_along_axis(length_BL, starts_BS, axis=1), 1)
        ends = jnp.take_along_axis(sums_BLD, (starts_BS + length_BS)[..., None], axis=1)
        return (ends - jnp.take_along_axis(sums_BLD, starts_BS[..., None], axis=1)) / length_BS[..., None]

    pair_BSE = jnp.concatenate([mean_of_mention(tails_BS + at_tail(head_BL)), mean_of_mention(tails_BS)], axis=-1)
    pair_NE, relation_N = pair_BSE.reshape(-1, pair_BSE.shape[-1]), at_tail(relation_BL).ravel()
    unit_NE = pair_NE / jnp.maximum(jnp.linalg.norm(pair_NE, axis=1, keepdims=True), 1e-6)
    others_NN = (relation_N > 0)[None] & (relation_N > 0)[:, None] & ~jnp.eye(len(relation_N), dtype=bool)
    logits_NN = jnp.where(others_NN, unit_NE @ unit_NE.T / temperature, -1e30)
    same_NN = others_NN & (relation_N[:, None] == relation_N[None])
    loss_NN = jax.nn.logsumexp(logits_NN, axis=1, keepdims=True) - logits_NN
    has_one_N = same_NN.any(axis=1)
    nearest_N = jnp.take_along_axis(same_NN, jnp.argmax(logits_NN, axis=1)[:, None], axis=1)[:, 0]
    return {
        "loss": Term(jnp.where(same_NN, loss_NN, 0.0).sum(), same_NN.sum().astype(jnp.float32)),
        "recall": Term((nearest_N & has_one_N).sum().astype(jnp.float32), has_one_N.sum().astype(jnp.float32)),
    }
