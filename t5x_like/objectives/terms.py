"""Several losses over one forward pass: the device half of methods with more than a token to predict.

A part is a function part(model, x_BLD, batch) of the stack's output; it gives {"loss": Term} and what else is worth
reporting, each with the weight of its own places over the whole global batch. What a part predicts with is a head of
the model by name (`Encoder.task_heads`), and what it reads beside the tokens is in `batch.aux`.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from t5x_like import losses
from t5x_like.features import Features
from t5x_like.losses import Term

Part = Callable[..., dict[str, Term]]


@dataclasses.dataclass(frozen=True)
class SumOfTerms:
    """sum over parts of weight * mean. One part is named "loss"; metrics of another, `pair`, are pair_loss and so on.

    parts     by name
    weights   of the parts that do not count once; 0 leaves a part out
    """

    parts: Mapping[str, Part]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if "loss" not in self.parts:
            raise ValueError(f"parts {sorted(self.parts)}: name one of them 'loss', which is what is watched")
        if unknown := sorted(set(self.weights) - set(self.parts)):
            raise ValueError(f"weights of {unknown}: the parts are {sorted(self.parts)}")
        if bad := {name: weight for name, weight in self.weights.items() if weight < 0}:
            raise ValueError(f"weights {bad} are negative; 0 leaves a part out")

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        x_BLD, terms = model.hidden(batch, dropout_key=dropout_key)
        for name, part in self.parts.items():
            weight = self.weights.get(name, 1.0)
            if weight:
                term = part(model, x_BLD, batch)["loss"]
                terms = terms | {name: Term(weight * term.sum, term.weight)}
        return terms

    def measure(self, model, batch: Features) -> dict[str, Term]:
        x_BLD = model.hidden(batch).x_BLD
        found = {}
        for name, part in self.parts.items():
            for metric, term in part(model, x_BLD, batch).items():
                found[metric if name == "loss" else f"{name}_{metric}"] = term
        return found


def predict_tokens(model, x_BLD: jax.Array, batch: Features) -> dict[str, Term]:
    """The targets of every place that has a weight, by the model's own head."""

    def measure(model, x_BLD, targets_BL):
        logits_BLV = model.logits(x_BLD)
        return losses.token_cross_entropy(logits_BLV, targets_BL), jnp.argmax(logits_BLV, axis=-1) == targets_BL

    loss_BL, right_BL = losses.by_chunks(measure, model, x_BLD, batch.targets, chunk_size=128)
    return means(loss_BL, right_BL, batch.loss_weights)


def classify_pairs(model, x_BLD: jax.Array, batch: Features) -> dict[str, Term]:
    """The class of each text, from its first token, by the head "pair": aux "pair" holds 1 + the class there."""
    label_BL = aux_of(batch, "pair")
    places_BL = jnp.broadcast_to(jnp.arange(x_BLD.shape[1])[None], label_BL.shape)
    return classify(head_of(model, "pair", "PairHead")(x_BLD, places_BL), label_BL)


def classify(logits_BLC: jax.Array, label_BL: jax.Array) -> dict[str, Term]:
    """Cross-entropy over classes; a label is 1 + the class, and 0 where nothing is predicted."""
    classes_BL = jnp.maximum(label_BL - 1, 0)
    loss_BL = losses.token_cross_entropy(logits_BLC, classes_BL)
    return means(loss_BL, jnp.argmax(logits_BLC, axis=-1) == classes_BL, (label_BL > 0).astype(jnp.float32))


def means(loss_BL: jax.Array, right_BL: jax.Array, weights_BL: jax.Array) -> dict[str, Term]:
    right = losses.weighted(right_BL.astype(jnp.float32), weights_BL)
    return {"loss": losses.weighted(loss_BL, weights_BL), "accuracy": right}


def head_of(model, name: str, kind: str):
    heads = getattr(model, "task_heads", {})
    if name not in heads:
        raise ValueError(
            f"the model has no head {name!r}, its task heads are {sorted(heads)}: set Encoder.task_heads = "
            f"{{{name!r}: @{kind}}}"
        )
    return heads[name]


def aux_of(batch: Features, name: str) -> jax.Array:
    if not batch.aux or name not in batch.aux:
        raise ValueError(
            f"the loss reads {name!r}, which the data does not have (it has {sorted(batch.aux or {})}): choose the "
            "objective that this loss belongs to"
        )
    return batch.aux[name]
