"""Which parameters an Optax transformation applies to, and which optimizer each goes by, told by their names.

By name, not by rank: a norm's scale in a stack of scanned layers has two dimensions and is no matrix.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import optax


@dataclasses.dataclass(frozen=True)
class AllExcept:
    """An Optax mask: True for every parameter whose name the regular expression is not found in.

    The default keeps weight decay away from norms and biases, so that it acts on matrices and embeddings (as nanoGPT).
    """

    pattern: str = r"(^|/)(scale|bias)$"

    def __post_init__(self):
        check_pattern(self.pattern)

    def __call__(self, params: Mapping[str, Any]) -> dict[str, bool]:
        chosen = {name: re.search(self.pattern, name) is None for name in params}
        if all(chosen.values()):
            raise ValueError(
                f"pattern {self.pattern!r} matches no parameter name, such as {', '.join(sorted(params)[:3])}; "
                "correct it, or leave the mask away"
            )
        return chosen


def grouped(optimizers: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """Each parameter goes by the one optimizer whose regular expression is found in its name.

    Every parameter matches exactly one of them, or nothing is trained: {"embedding|head": ..., "layers|norm": ...}.
    """
    for pattern in optimizers:
        check_pattern(pattern)

    def label(params: Mapping[str, Any]) -> dict[str, str]:
        found = {name: [pattern for pattern in optimizers if re.search(pattern, name)] for name in params}
        wrong = {name: patterns for name, patterns in found.items() if len(patterns) != 1}
        if wrong:
            name, patterns = next(iter(sorted(wrong.items())))
            which = f"{len(patterns)} of the patterns {patterns}" if patterns else f"none of {sorted(optimizers)}"
            raise ValueError(
                f"parameter {name} and {len(wrong) - 1} others: each must match exactly one group, it matches {which}"
            )
        unused = sorted(set(optimizers) - {patterns[0] for patterns in found.values()})
        if unused:
            raise ValueError(f"groups {unused} match no parameter, such as {', '.join(sorted(params)[:3])}")
        return {name: patterns[0] for name, patterns in found.items()}

    return optax.multi_transform(dict(optimizers), label)


def check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
