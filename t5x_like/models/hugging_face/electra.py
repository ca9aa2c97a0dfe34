"""ELECTRA: its discriminator and its generator, which are two folders there and one model while it is trained here."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face import bert
from t5x_like.models.hugging_face.bert import dense, norm
from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import Rule, flat, keep, linear


def encoder(ours: str) -> tuple[Rule, ...]:
    """The rules of an encoder whose parameters here begin with `ours`."""
    entry = f"{ours}stack/entry/narrow"
    rules = (
        *bert.embeddings(
            entry,
            "electra.embeddings",
            keep(f"{entry}/positions/table", "electra.embeddings.position_embeddings.weight"),
        ),
        linear("stack/entry/kernel", "electra.embeddings_project.weight"),
        flat("stack/entry/bias", "electra.embeddings_project.bias"),
        *bert.layers("electra.encoder.layer.{}"),
    )
    return tuple(
        rule._replace(ours=tuple(name if name.startswith(entry) else f"{ours}{name}" for name in rule.ours))
        for rule in rules
    )


def generator_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "position_embedding_type", "absolute")
    return bert.bert_bindings(config) | {"EMBEDDING_WIDTH": config["embedding_size"]}


def discriminator_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    told = generator_bindings(config)
    told |= {"Discriminator.vocab_size": told.pop("Encoder.vocab_size")}
    del told["MlmHead.activation"]
    return told | {"Discriminator.width": told.pop("EMBEDDING_WIDTH")}


def config_of(encoder: nnx.Module) -> dict[str, Any]:
    return bert.config_of(encoder) | {"embedding_size": encoder.embedding.table.shape[1]}


ELECTRA = Family(
    "electra",
    "ElectraForPreTraining",
    "models/electra_discriminator.gin",
    discriminator_bindings,
    lambda model: config_of(model.encoder),
    (
        *encoder("encoder/"),
        *dense("head/dense", "discriminator_predictions.dense"),
        linear("head/out", "discriminator_predictions.dense_prediction.weight"),
        flat("head/out_bias", "discriminator_predictions.dense_prediction.bias"),
    ),
    (r".*position_ids",),
    part=lambda model: getattr(model, "discriminator", model),
)
ELECTRA_GENERATOR = Family(
    "electra",
    "ElectraForMaskedLM",
    "models/electra_generator.gin",
    generator_bindings,
    config_of,
    (
        *encoder(""),
        *dense("head/dense", "generator_predictions.dense"),
        *norm("head/norm", "generator_predictions.LayerNorm"),
        keep("head/bias", "generator_lm_head.bias"),
    ),
    (r"generator_lm_head\.weight", r".*position_ids"),
    part=lambda model: getattr(model, "generator", model),
)
