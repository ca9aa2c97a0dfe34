"""BERT, RoBERTa and ALBERT with their masked-language heads."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import Rule, after_rows, flat, keep, linear

OURS = "stack/layers/{}"


def norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    return keep(f"{ours}/scale", f"{theirs}.weight"), keep(f"{ours}/bias", f"{theirs}.bias")


def dense(ours: str, theirs: str, *, num_inputs: int = 1) -> tuple[Rule, ...]:
    return linear(ours, f"{theirs}.weight", num_inputs=num_inputs), flat(f"{ours}_bias", f"{theirs}.bias")


def layers(theirs: str) -> tuple[Rule, ...]:
    return (
        *dense(f"{OURS}/attention/query", f"{theirs}.attention.self.query"),
        *dense(f"{OURS}/attention/key", f"{theirs}.attention.self.key"),
        *dense(f"{OURS}/attention/value", f"{theirs}.attention.self.value"),
        *dense(f"{OURS}/attention/out", f"{theirs}.attention.output.dense", num_inputs=2),
        *norm(f"{OURS}/attention_norm/after", f"{theirs}.attention.output.LayerNorm"),
        *dense(f"{OURS}/mlp/up", f"{theirs}.intermediate.dense"),
        *dense(f"{OURS}/mlp/down", f"{theirs}.output.dense"),
        *norm(f"{OURS}/mlp_norm/after", f"{theirs}.output.LayerNorm"),
    )


def embeddings(entry: str, theirs: str, positions: Rule) -> tuple[Rule, ...]:
    return (
        keep("embedding/table", f"{theirs}.word_embeddings.weight"),
        positions,
        keep(f"{entry}/types", f"{theirs}.token_type_embeddings.weight"),
        *norm(f"{entry}/norm", f"{theirs}.LayerNorm"),
    )


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "hidden_act", "gelu")
    require(config, "tie_word_embeddings", True)
    return {
        "Encoder.vocab_size": config["vocab_size"],
        "Encoder.num_layers": config["num_hidden_layers"],
        "Encoder.d_model": config["hidden_size"],
        "Encoder.num_heads": config["num_attention_heads"],
        "Encoder.d_ff": config["intermediate_size"],
        "Entry.num_types": config.get("type_vocab_size", 2),
        "LayerNorm.epsilon": config.get("layer_norm_eps", 1e-12),
        "MlmHead.activation": "gelu",
    }


def bert_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    return sizes(config) | {"LearnedPositions.max_length": config["max_position_embeddings"]}


def roberta_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    return sizes(config) | {"LearnedPositions.max_length": config["max_position_embeddings"] - 2}


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes, entry = model.sizes, model.stack.entry
    entry = getattr(entry, "narrow", entry)
    return {
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.stack.kinds.num_layers,
        "hidden_size": sizes.d_model,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.d_ff,
        "max_position_embeddings": entry.positions.table.shape[0],
        "type_vocab_size": entry.types.shape[0],
        "layer_norm_eps": entry.norm.epsilon,
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
    }


def roberta_config(model: nnx.Module) -> dict[str, Any]:
    config = config_of(model)
    return config | {"max_position_embeddings": config["max_position_embeddings"] + 2, "pad_token_id": 1}


def albert_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "num_hidden_groups", 1)
    require(config, "inner_group_num", 1)
    require(config, "hidden_act", "gelu_new")
    told = {"Mlp.activation": "gelu_tanh", "MlmHead.activation": "gelu_tanh"}
    return bert_bindings({**config, "hidden_act": "gelu"}) | told | {"EMBEDDING_WIDTH": config["embedding_size"]}


def albert_config(model: nnx.Module) -> dict[str, Any]:
    return config_of(model) | {
        "embedding_size": model.embedding.table.shape[1],
        "hidden_act": "gelu_new",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    }


def mlm_head(theirs: str, *, dense_name: str, norm_name: str) -> tuple[Rule, ...]:
    return (
        *dense("head/dense", f"{theirs}.{dense_name}"),
        *norm("head/norm", f"{theirs}.{norm_name}"),
        keep("head/bias", f"{theirs}.bias"),
    )


GROUP = "albert.encoder.albert_layer_groups.0.albert_layers.0"
BERT = Family(
    "bert",
    "BertForMaskedLM",
    "models/bert.gin",
    bert_bindings,
    config_of,
    (
        *embeddings(
            "stack/entry",
            "bert.embeddings",
            keep("stack/entry/positions/table", "bert.embeddings.position_embeddings.weight"),
        ),
        *layers("bert.encoder.layer.{}"),
        *mlm_head("cls.predictions", dense_name="transform.dense", norm_name="transform.LayerNorm"),
    ),
    (r"cls\.predictions\.decoder\..*", r".*position_ids", r"bert\.pooler\..*", r"cls\.seq_relationship\..*"),
)
ROBERTA = Family(
    "roberta",
    "RobertaForMaskedLM",
    "models/roberta.gin",
    roberta_bindings,
    roberta_config,
    (
        *embeddings(
            "stack/entry",
            "roberta.embeddings",
            after_rows("stack/entry/positions/table", "roberta.embeddings.position_embeddings.weight", unused=2),
        ),
        *layers("roberta.encoder.layer.{}"),
        *mlm_head("lm_head", dense_name="dense", norm_name="layer_norm"),
    ),
    (r"lm_head\.decoder\..*", r".*position_ids", r"roberta\.pooler\..*"),
)
ALBERT = Family(
    "albert",
    "AlbertForMaskedLM",
    "models/albert.gin",
    albert_bindings,
    albert_config,
    (
        *embeddings(
            "stack/entry/narrow",
            "albert.embeddings",
            keep("stack/entry/narrow/positions/table", "albert.embeddings.position_embeddings.weight"),
        ),
        linear("stack/entry/kernel", "albert.encoder.embedding_hidden_mapping_in.weight"),
        flat("stack/entry/bias", "albert.encoder.embedding_hidden_mapping_in.bias"),
        *dense("stack/layers/0/attention/query", f"{GROUP}.attention.query"),
        *dense("stack/layers/0/attention/key", f"{GROUP}.attention.key"),
        *dense("stack/layers/0/attention/value", f"{GROUP}.attention.value"),
        *dense("stack/layers/0/attention/out", f"{GROUP}.attention.dense", num_inputs=2),
        *norm("stack/layers/0/attention_norm/after", f"{GROUP}.attention.LayerNorm"),
        *dense("stack/layers/0/mlp/up", f"{GROUP}.ffn"),
        *dense("stack/layers/0/mlp/down", f"{GROUP}.ffn_output"),
        *norm("stack/layers/0/mlp_norm/after", f"{GROUP}.full_layer_layer_norm"),
        *mlm_head("predictions", dense_name="dense", norm_name="LayerNorm"),
    ),
    (r"predictions\.decoder\..*", r".*position_ids", r"albert\.pooler.*", r"sop_classifier\..*"),
)
