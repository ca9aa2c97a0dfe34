"""THE table of families: a name in a command -> what it is. Nothing else is looked up by a name found in a file."""

import difflib
from collections.abc import Mapping
from typing import Any

from t5x_like.models.hugging_face.bart import BART, MBART
from t5x_like.models.hugging_face.bert import ALBERT, BERT, ROBERTA
from t5x_like.models.hugging_face.bloom import BLOOM
from t5x_like.models.hugging_face.electra import ELECTRA, ELECTRA_GENERATOR
from t5x_like.models.hugging_face.family import Family
from t5x_like.models.hugging_face.gemma import GEMMA, GEMMA2, GEMMA3
from t5x_like.models.hugging_face.gpt2 import GPT2
from t5x_like.models.hugging_face.gpt_neox import GPT_NEOX
from t5x_like.models.hugging_face.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from t5x_like.models.hugging_face.mixtral import MIXTRAL, QWEN3_MOE
from t5x_like.models.hugging_face.modernbert import MODERNBERT
from t5x_like.models.hugging_face.paligemma import PALIGEMMA
from t5x_like.models.hugging_face.t5 import MT5, T5_1_0, T5_1_1, UL2, UMT5
from t5x_like.models.hugging_face.two_towers import CLIP, SIGLIP
from t5x_like.models.hugging_face.vision import VIT

FAMILIES: dict[str, Family] = {
    "albert": ALBERT,
    "bart": BART,
    "bert": BERT,
    "bloom": BLOOM,
    "clip": CLIP,
    "electra": ELECTRA,
    "electra_generator": ELECTRA_GENERATOR,
    "gemma": GEMMA,
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
    "paligemma": PALIGEMMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
    "roberta": ROBERTA,
    "siglip": SIGLIP,
    "t5_1_0": T5_1_0,
    "t5_1_1": T5_1_1,
    "ul2": UL2,
    "umt5": UMT5,
    "vit": VIT,
}


BY_MLP = {"relu": "t5_1_0", "gated-gelu": "t5_1_1", "gated-silu": "ul2"}  # they have one model_type


def family_named(name: str) -> Family:
    if name not in FAMILIES:
        nearest = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.0)[0]
        raise ValueError(f"family {name!r} is not one of {', '.join(FAMILIES)}; nearest is {nearest!r}")
    return FAMILIES[name]


def family_of(config: Mapping[str, Any]) -> str:
    """Which family a config.json is of."""
    model_type = config.get("model_type")
    if model_type == "t5":
        return BY_MLP.get(config.get("feed_forward_proj", "relu"), "t5_1_1")
    names = [name for name, family in FAMILIES.items() if family.model_type == model_type]
    if not names:
        known = sorted({family.model_type for family in FAMILIES.values()})
        nearest = difflib.get_close_matches(str(model_type), known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"config.json says model_type {model_type!r}; known are {', '.join(known)}, nearest {nearest!r}"
        )
    # Two models of one type (ELECTRA's) are told apart by their architecture.
    told = config.get("architectures") or []
    return next((name for name in names if FAMILIES[name].architecture in told), names[0])
