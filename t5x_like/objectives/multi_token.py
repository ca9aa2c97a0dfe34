"""Multi-token prediction (arXiv:2404.19737, section 2): further heads predict the tokens behind the next one.

  tokens    a b c d e      targets   b c d e f
  head 0              c d e f -        two ahead
  head 1              d e f - -        three ahead

A loss only: the data is any that predicts the next token (CausalLM). `SumOfTerms` of predict_tokens and of this, with
Decoder.task_heads = {"ahead": @MultiTokenHeads}.
"""

import jax
import jax.numpy as jnp

from t5x_like import losses
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.terms import head_of, means


def predict_ahead(model, x_BLD: jax.Array, batch: Features) -> dict[str, Term]:
    """The sum over the further heads of a mean over what each predicts: as many times the mean of all of it.

    A place takes part where it and the token that it predicts both have a weight and are of one text.
    """
    heads = head_of(model, "ahead", "MultiTokenHeads")(x_BLD, batch)
    found = [_one_head(model, hidden.x_BLD, batch, k + 1) for k, hidden in enumerate(heads)]
    weight = sum(terms["loss"].weight for terms in found)
    return {
        "loss": Term(len(found) * sum(terms["loss"].sum for terms in found), weight),
        "accuracy": Term(sum(terms["accuracy"].sum for terms in found), weight),
    }


def _one_head(model, x_BLD: jax.Array, batch: Features, distance: int) -> dict[str, Term]:
    def later(array_BL):
        return jnp.pad(array_BL[:, distance:], ((0, 0), (0, distance)))

    same_text_BL = (later(batch.segment_ids) == batch.segment_ids) & (batch.loss_weights > 0)
    weights_BL = jnp.where(same_text_BL, later(batch.loss_weights), 0.0)

    def measure(model, x_BLD, targets_BL):
        logits_BLV = model.logits(x_BLD)
        return losses.token_cross_entropy(logits_BLV, targets_BL), jnp.argmax(logits_BLV, axis=-1) == targets_BL

    loss_BL, right_BL = losses.by_chunks(measure, model, x_BLD, later(batch.targets), chunk_size=128)
    return means(loss_BL, right_BL, weights_BL)
