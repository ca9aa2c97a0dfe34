"""LUKE (arXiv:2010.01057, section 3.3): hidden words and hidden entities, which stand behind the text as tokens too.

  text       [CLS] Be ##yon ##ce lives in [MASK] [SEP] <entity> <entity>
  entities                                             Beyonce  [MASK]         -> Los Angeles

The mentions of a text (the feature `entities`, see data/mentions.py) follow it in their order, `max_entities` at most,
each as the token <mark:entity>; which one it is and where its mention stands is read by `EntityEntry`. 15 % of whole
words are hidden as in `masked_lm`, and max(1, round(0.15 * n)) of n entities: 80 % behind [MASK], 10 % behind a random
one, 10 % kept. The loss is the sum of both means. Entities are numbered 0 ... num_entities - 1.
"""

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.data import choosing, chunking, mentions, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.masked_lm import MaskedLM, check_one_side, check_shares
from t5x_like.objectives.next_sentence import as_mask, check_mask
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import aux_of, classify, head_of


def _words() -> MaskedLM:
    return MaskedLM(units="words")


@attrs.frozen(kw_only=True)
class EntityPrediction(SeqioPreprocessor):
    num_entities: int
    mask: MaskedLM = attrs.field(factory=_words, converter=as_mask)
    max_entities: int = 32
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    reads = ("targets", "entities")

    def __attrs_post_init__(self):
        check_mask(self.mask)
        check_shares(self.rate, self.masked, self.random)
        if min(self.num_entities, self.max_entities) < 1:
            raise ValueError(f"{self}: num_entities and max_entities must be at least 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        special, room = context.special, context.lengths["targets"] - 2 - self.max_entities
        pieces = chunking.split_documents(documents.features["targets"], room)
        found = self.kept_mentions(chunking.split_documents(documents.features["entities"], room))
        counts = np.bincount(found.sequence, minlength=len(pieces.lengths))
        text = ragged.surround(pieces, special.cls_token(), special.separator_token())
        behind = Ragged(np.full(counts.sum(), special.marker("entity"), np.int32), counts)
        whole = ragged.join_pairs(text, behind)
        within = ragged.index_within(whole.lengths)
        length = np.repeat(text.lengths, whole.lengths)
        candidates, is_entity = (within > 0) & (within < length - 1), within >= length
        begins = context.begins_word()[whole.values] if self.mask.units == "words" else None
        positions = within.astype(np.int32)
        positions[is_entity] = found.starts - pieces.starts[found.sequence] + 1
        aux = self.hide_entities(rng, found, counts, is_entity)
        return self.mask.hide(rng, whole, candidates, begins, context, positions=positions[:, None], aux=aux)

    def kept_mentions(self, entities: Ragged) -> mentions.Mentions:
        """The first `max_entities` of each piece."""
        found = mentions.find_mentions(entities)
        if found.entity.max(initial=0) > self.num_entities:
            raise ValueError(
                f"entity {found.entity.max() - 1} is none of num_entities {self.num_entities}: they are numbered from 0"
            )
        counts = np.bincount(found.sequence, minlength=len(entities.lengths))
        kept = ragged.index_within(counts) < self.max_entities
        return mentions.Mentions(*(array[kept] for array in found))

    def hide_entities(self, rng, found: mentions.Mentions, counts: np.ndarray, is_entity: np.ndarray) -> dict:
        """aux "entity" (what is read), "entity_length", and "entity_label": 1 + the entity where it is hidden."""
        units = choosing.find_units(counts, np.ones(len(found.entity), bool))
        budgets = choosing.bert_budget(counts, self.rate, None)
        hidden, number = choosing.units_by_count(rng, units, budgets), found.entity - 1
        draw = rng.random(len(number))
        other = rng.integers(self.num_entities, size=len(number))
        shown = np.where(hidden & (draw >= self.masked) & (draw < self.masked + self.random), other, number) + 2
        shown[hidden & (draw < self.masked)] = 1
        aux = {name: np.zeros(len(is_entity), np.int32) for name in ("entity", "entity_length", "entity_label")}
        aux["entity"][is_entity], aux["entity_length"][is_entity] = shown, found.lengths
        aux["entity_label"][is_entity] = np.where(hidden, number + 1, 0)
        return aux

    def check(self, context: Context) -> None:
        check_one_side(context, least=self.max_entities + 8)
        self.mask.check(context)
        context.special.marker("entity")


def predict_entities(model, x_BLD: jax.Array, batch: Features, *, per_row: int = 16) -> dict[str, Term]:
    """The hidden entities by the head "entity"; per_row is the most of a row that are predicted."""
    label_BL = aux_of(batch, "entity_label")
    _, places_BS = jax.lax.top_k((label_BL > 0).astype(jnp.int32), min(per_row, label_BL.shape[1]))
    x_BSD = jnp.take_along_axis(x_BLD, places_BS[..., None], axis=1)
    logits_BSC = head_of(model, "entity", "EntityHead")(x_BSD)
    return classify(logits_BSC, jnp.take_along_axis(label_BL, places_BS, axis=1))
