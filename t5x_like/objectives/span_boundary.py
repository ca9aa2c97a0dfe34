"""SpanBERT (arXiv:1907.10529, sections 3.1 and 3.2; the released code): hide spans of words, and predict them twice.

  text      [CLS] An American foot ##ball game [SEP]
  tokens    [CLS] An [MASK] [MASK] [MASK] game [SEP]      80 / 10 / 10, drawn once for a span
  targets            American foot ##ball                 by the token itself, and again from `An`, `game` and the place

Spans of 1 to 10 words, geometric with p = 0.2 cut off at 10 and renormalised (mean 3.797), until exactly
ceil(0.15 * tokens) are hidden; neighbouring and overlapping spans become one. The boundary objective (SBO) reads the
last token before the span, the first behind it and the place in the span; places beyond `max_targets` of a span are
predicted by the tokens alone. The loss is the sum of both means. One text an example, no next sentence.
"""

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from t5x_like import losses
from t5x_like.data import choosing, chunking, ragged, replacing
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.masked_lm import check_one_side, check_shares
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import aux_of, head_of, means


@attrs.frozen(kw_only=True)
class SpanBoundary(SeqioPreprocessor):
    rate: float = 0.15
    geometric_p: float = 0.2
    max_words: int = 10
    max_targets: int = 20
    masked: float = 0.8
    random: float = 0.1

    def __attrs_post_init__(self):
        check_shares(self.rate, self.masked, self.random)
        if not 0 < self.geometric_p < 1 or self.max_words < 1 or self.max_targets < 1:
            raise ValueError(f"{self}: geometric_p must be between 0 and 1, max_words and max_targets at least 1")

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        pieces = chunking.split_documents(documents.features["targets"], context.lengths["targets"] - 2)
        whole = np.ones(len(pieces.values), bool)
        words = choosing.find_units(pieces.lengths, whole, context.begins_word()[pieces.values])
        budgets = np.ceil(self.rate * pieces.lengths).astype(np.int64)
        shares = choosing.geometric_shares(self.geometric_p, self.max_words)
        mask = choosing.geometric_spans(rng, pieces.lengths, words, budgets, shares)
        return self.side(rng, pieces, mask, context)

    def side(self, rng: np.random.Generator, pieces: Ragged, mask: np.ndarray, context: Context) -> Side:
        """What is read and predicted where the hidden tokens of the pieces are given."""
        special = context.special
        text = ragged.surround(pieces, special.cls_token(), special.separator_token())
        hidden = np.zeros(len(text.values), bool)
        hidden[choosing.inside(text)] = mask
        spans = choosing.runs(text.lengths, hidden)
        tokens = replacing.bert_style(
            rng,
            text,
            hidden,
            masked=self.masked,
            random=self.random,
            mask_token=special.mask_token(),
            allowed=np.arange(context.vocab_size),
            groups=spans.of_token,
        )
        return Side.bidirectional(tokens, text.values, hidden, aux=self.boundaries(spans))

    def boundaries(self, spans: choosing.Units) -> dict[str, np.ndarray]:
        """At each hidden token, how far back the token before its span is and how far on the one behind it, or 0."""
        places = np.flatnonzero(spans.of_token >= 0)
        span = spans.of_token[places]
        back = places - spans.starts[span] + 1
        far = spans.lengths[span] + 1 - back
        kept = back <= self.max_targets
        before, after = np.zeros((2, len(spans.of_token)), np.int32)
        before[places[kept]], after[places[kept]] = back[kept], far[kept]
        return {"span_before": before, "span_after": after}

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)
        context.begins_word()


def predict_from_boundary(model, x_BLD: jax.Array, batch: Features) -> dict[str, Term]:
    """SBO, by the head "span": the hidden token from the two that stand beside its span."""
    back_BL, far_BL = aux_of(batch, "span_before"), aux_of(batch, "span_after")
    head = head_of(model, "span", "SpanBoundaryHead")
    place_BL = jnp.arange(x_BLD.shape[1])[None]
    logits_BLV = head(
        x_BLD, place_BL - back_BL, place_BL + far_BL, jnp.maximum(back_BL - 1, 0), model.embedding.table[...]
    )
    loss_BL = losses.token_cross_entropy(logits_BLV, batch.targets)
    right_BL = jnp.argmax(logits_BLV, axis=-1) == batch.targets
    return means(loss_BL, right_BL, (back_BL > 0).astype(jnp.float32))
