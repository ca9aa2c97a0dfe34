"""THE list of objectives: name in a task.json or config -> class. Any other name is refused, never imported."""

from t5x_like.objectives.bart import Bart
from t5x_like.objectives.causal_lm import CausalLM
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.random_replacement import RandomReplacement
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.supervised import Supervised
from t5x_like.objectives.ul2 import UL2

OBJECTIVES: dict[str, type] = {
    "Bart": Bart,
    "CausalLM": CausalLM,
    "Deshuffling": Deshuffling,
    "IidDenoising": IidDenoising,
    "PrefixLM": PrefixLM,
    "RandomReplacement": RandomReplacement,
    "SpanCorruption": SpanCorruption,
    "Supervised": Supervised,
    "UL2": UL2,
}
