"""Entity discrimination (ERICA, arXiv:2012.15022, section 3.2): which entity is so related to the one that is asked of?

  text      [CLS] place of birth J . K . Rowling [SEP] J . K . Rowling was born in Yate , England . [SEP]
            relation and head: the question            head                        tail   another

A text with facts (the features `entities` and `relations`, as for `relation_contrast`) is asked of one of them, drawn
at random: the words of the relation (`relation_names`, one for each number) and the first mention of the head stand
before it. An entity is the mean of the states of all its mentions in the text, and the tail is told from the other
entities of its text by a softmax of cosines to the head over a temperature of 0.05. Beside it stand masked tokens, of
which none belongs to an entity or to a question. A text without facts is asked nothing.
"""

import functools

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
from t5x_like.objectives.relation_contrast import Facts, known_facts
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import aux_of
from t5x_like.vocabularies.load import Vocabulary

HEAD, TAIL, OTHER = 1, 2, 3


@attrs.frozen(kw_only=True)
class EntityDiscrimination(SeqioPreprocessor):
    relation_names: tuple[str, ...] = attrs.field(converter=tuple)
    question_length: int = 16
    mask: MaskedLM = attrs.field(factory=MaskedLM, converter=as_mask)

    reads = ("targets", "entities", "relations")

    def __attrs_post_init__(self):
        check_mask(self.mask)
        if self.question_length < 2 or not self.relation_names:
            raise ValueError(
                f"question_length {self.question_length} must be at least 2 (a relation and a head), and "
                "relation_names must name the relations by number"
            )

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        special, room = context.special, context.lengths["targets"] - 3 - self.question_length
        cut = {name: chunking.split_documents(documents.features[name], room) for name in self.reads}
        found = mentions.find_mentions(cut["entities"])
        facts = known_facts(found, cut["relations"].values)
        self.check_numbers(facts)
        asked = one_of_each(rng, found.sequence[facts.tails], len(cut["targets"].lengths))
        questions = self.questions(cut["targets"], found, facts, asked, context.vocabulary)
        questions = ragged.append(questions, special.separator_token(), questions.lengths > 0)
        text = ragged.surround(
            ragged.join_pairs(questions, cut["targets"]), special.cls_token(), special.separator_token()
        )
        before = 1 + questions.lengths  # tokens of each text that stand before its own
        entity, role = np.zeros((2, len(text.values)), np.int32)
        place = text.starts + before  # of each text's own first token
        own = ragged.gather(np.arange(len(text.values)), place, cut["targets"].lengths).values
        entity[own] = np.where(cut["entities"].values > 1, cut["entities"].values // 2, 0)
        starts = found.starts - cut["targets"].starts[found.sequence] + place[found.sequence]
        some = np.flatnonzero(asked >= 0)
        is_asked = np.isin(found.sequence, some)
        role[starts[is_asked & first_mentions(found)]] = OTHER
        role[starts[first_of(found, facts.tails[asked[some]])]] = TAIL
        role[starts[facts.heads[asked[some]]]] = HEAD
        is_own = np.zeros(len(text.values), bool)
        is_own[own] = True
        begins = context.begins_word()[text.values] if self.mask.units == "words" else None
        aux = {"entity": entity, "entity_role": role}
        return self.mask.hide(rng, text, choosing.inside(text) & is_own & (entity == 0), begins, context, aux=aux)

    def questions(
        self, texts: Ragged, found: Mentions, facts: Facts, asked: np.ndarray, vocabulary: Vocabulary
    ) -> Ragged:
        """Relation and head of the fact that each text is asked of; nothing where `asked` [texts] is -1."""
        names = encoded(self.relation_names, self.question_length - 1, vocabulary)
        some = asked[asked >= 0]
        name = ragged.take(names, facts.relations[some])
        room = self.question_length - name.lengths
        head = facts.heads[some]
        mention = ragged.gather(texts.values, found.starts[head], np.minimum(found.lengths[head], room))
        both = ragged.join_pairs(name, mention)
        lengths = np.zeros(len(asked), np.int64)
        lengths[asked >= 0] = both.lengths
        return Ragged(both.values, lengths)

    def check_numbers(self, facts: Facts) -> None:
        if len(facts.relations) and (most := int(facts.relations.max())) >= len(self.relation_names):
            raise ValueError(
                f"the data has relation {most}, relation_names has {len(self.relation_names)} names: name all, from 0"
            )

    def check(self, context: Context) -> None:
        check_one_side(context, least=self.question_length + 4)
        self.mask.check(context)
        if context.vocabulary is None:
            raise ValueError("EntityDiscrimination asks in words, but the context has no vocabulary: give it")


@functools.cache
def encoded(names: tuple[str, ...], longest: int, vocabulary: Vocabulary) -> Ragged:
    return ragged.from_list([np.array(vocabulary.encode(name)[:longest], np.int32) for name in names])


def one_of_each(rng: np.random.Generator, sequence: np.ndarray, count: int) -> np.ndarray:
    """For each of `count` sequences the number of a random one of the things in it, -1 without one; int64 [count]."""
    chosen = np.full(count, -1)
    order = rng.permutation(len(sequence))
    chosen[sequence[order]] = order
    return chosen


def first_mentions(found: Mentions) -> np.ndarray:
    """bool [mentions]: is it the first one of its entity in its text?"""
    is_first = np.zeros(len(found.starts), bool)
    is_first[np.unique(np.stack([found.sequence, found.entity]), axis=1, return_index=True)[1]] = True
    return is_first


def first_of(found: Mentions, numbers: np.ndarray) -> np.ndarray:
    """For these mentions the first one of the same entity in the same text."""
    keys = np.stack([found.sequence, found.entity])
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)[numbers]]


def find_tails(
    model, x_BLD: jax.Array, batch: Features, *, temperature: float = 0.05, per_row: int = 32
) -> dict[str, Term]:
    """-log softmax of cosine / temperature of each head's tail among the other entities of its text.

    per_row   most entities of a row that take part, from its start
    "accuracy": how often the tail is the nearest.
    """
    role_BL, entity_BL = aux_of(batch, "entity_role"), aux_of(batch, "entity")
    _, places_BS = jax.lax.top_k((role_BL > 0).astype(jnp.int32), min(per_row, role_BL.shape[1]))

    def at(array_BL: jax.Array) -> jax.Array:
        return jnp.take_along_axis(array_BL, places_BS, axis=1)

    role_BS, entity_BS, segment_BS = at(role_BL), at(entity_BL), at(batch.segment_ids)
    belongs_BSL = (entity_BS[..., None] == entity_BL[:, None]) & (segment_BS[..., None] == batch.segment_ids[:, None])
    share_BSL = belongs_BSL / jnp.maximum(belongs_BSL.sum(axis=2, keepdims=True), 1)
    mean_BSD = jnp.einsum("BSL,BLD->BSD", share_BSL, x_BLD.astype(jnp.float32), precision="highest")
    unit_BSD = mean_BSD / jnp.maximum(jnp.linalg.norm(mean_BSD, axis=-1, keepdims=True), 1e-6)
    logits_BST = jnp.einsum("BSD,BTD->BST", unit_BSD, unit_BSD, precision="highest") / temperature
    others_BST = (role_BS[:, None] > HEAD) & (segment_BS[:, :, None] == segment_BS[:, None])
    logits_BST = jnp.where(others_BST, logits_BST, -1e30)
    is_tail_BST = others_BST & (role_BS[:, None] == TAIL)
    asks_BS = (role_BS == HEAD) & is_tail_BST.any(axis=2)
    right_BS = jnp.where(is_tail_BST, logits_BST, -1e30).max(axis=2)
    loss_BS = jax.nn.logsumexp(logits_BST, axis=2) - right_BS
    count = asks_BS.sum().astype(jnp.float32)
    return {
        "loss": Term(jnp.where(asks_BS, loss_BS, 0.0).sum(), count),
        "accuracy": Term((asks_BS & (right_BS >= logits_BST.max(axis=2))).sum().astype(jnp.float32), count),
    }
