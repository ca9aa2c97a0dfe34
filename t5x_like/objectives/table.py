"""THE list of objectives: name in a task.json or config -> class. Any other name is refused, never imported."""

from t5x_like.objectives.causal_lm import CausalLM
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.supervised import Supervised

OBJECTIVES: dict[str, type] = {
    "CausalLM": CausalLM,
    "PrefixLM": PrefixLM,
    "SpanCorruption": SpanCorruption,
    "Supervised": Supervised,
}
