"""THE table of families: a name in a command -> what it is. Nothing else is looked up by a name found in a file."""

import difflib
from collections.abc import Mapping
from typing import Any

from t5x_like.models.hugging_face.bart import BART, MBART
from t5x_like.models.hugging_face.bert import ALBERT, BERT, ROBERTA
from t5x_like.models.hugging_face.bloom import BLOOM
from t5x_like.models.hugging_face.family import Family
from t5x_like.models.hugging_face.gemma import GEMMA2, GEMMA3
from t5x_like.models.hugging_face.gpt2 import GPT2
from t5x_like.models.hugging_face.gpt_neox import GPT_NEOX
from t5x_like.models.hugging_face.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from t5x_like.models.hugging_face.mixtral import MIXTRAL, QWEN3_MOE
from t5x_like.models.hugging_face.modernbert import MODERNBERT
from t5x_like.models.hugging_face.t5 import MT5, T5_1_0, T5_1_1, UMT5

FAMILIES: dict[str, Family] = {
    "albert": ALBERT,
    "bart": BART,
    "bert": BERT,
    "bloom": BLOOM,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "mbart": MBART,
    "mistral": MISTRAL,
    "mixtral": MIXTRAL,
    "modernbert": MODERNBERT,
    "mt5": MT5,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
    "roberta": ROBERTA,
    "t5_1_0": T5_1_0,
    "t5_1_1": T5_1_1,
    "umt5": UMT5,
}


def family_named(name: str) -> Family:
    if name not in FAMILIES:
        nearest = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.0)[0]
        raise ValueError(f"family {name!r} is not one of {', '.join(FAMILIES)}; nearest is {nearest!r}")
    return FAMILIES[name]


def family_of(config: Mapping[str, Any]) -> str:
    """Which family a config.json is of."""
    model_type = config.get("model_type")
    if model_type == "t5":
        return "t5_1_1" if str(config.get("feed_forward_proj", "relu")).startswith("gated") else "t5_1_0"
    names = {family.model_type: name for name, family in FAMILIES.items() if family.model_type != "t5"}
    if model_type not in names:
        known = [*names, "t5"]
        nearest = difflib.get_close_matches(str(model_type), known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"config.json says model_type {model_type!r}; known are {', '.join(known)}, nearest {nearest!r}"
        )
    return names[model_type]
