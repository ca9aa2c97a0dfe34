"""A family of models of Hugging Face's transformers: what its files say, in our words and back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from t5x_like.models.hugging_face.rules import Rule


class Family(NamedTuple):
    """One row of `table.FAMILIES`.

    model_type     and `architecture`: of config.json
    include        the config that names the parts, below configs/
    bindings       config.json -> what to bind beside it, by name; a value "@name" is a reference
    config         a model -> config.json without the two names
    rules          every weight
    ignored        regular expressions of their tensors that say nothing new (a tied head, tables of constants)
    part           what of a larger model of ours can be exported as this family (ELECTRA's discriminator)
    """

    model_type: str
    architecture: str
    include: str
    bindings: Callable[[Mapping[str, Any]], dict[str, Any]]
    config: Callable[[nnx.Module], dict[str, Any]]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    part: Callable[[nnx.Module], nnx.Module] = lambda model: model


def require(config: Mapping[str, Any], key: str, wanted: Any) -> None:
    """Raises where config.json asks for a part that this family does not have here."""
    if config.get(key, wanted) != wanted:
        raise ValueError(f"config.json says {key} {config[key]!r}; only {wanted!r} can be imported")


def decoder_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config.json that names its sizes as LLaMA's does."""
    heads = config["num_attention_heads"]
    return {
        "Decoder.vocab_size": config["vocab_size"],
        "Decoder.num_layers": config["num_hidden_layers"],
        "Decoder.d_model": config["hidden_size"],
        "Decoder.num_heads": heads,
        "Decoder.num_kv_heads": config.get("num_key_value_heads", heads),
        "Decoder.head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "Decoder.d_ff": config["intermediate_size"],
    }


def sizes_of_decoder(model: nnx.Module) -> dict[str, Any]:
    """The inverse of `decoder_sizes`."""
    sizes = model.stack.sizes
    return {
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.stack.kinds.num_layers,
        "hidden_size": sizes.d_model,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.num_kv_heads,
        "head_dim": sizes.head_dim,
        "intermediate_size": sizes.d_ff,
        "tie_word_embeddings": type(model.head).__name__ != "UntiedHead",
    }
