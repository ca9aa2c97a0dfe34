"""Which parameters an Optax transformation applies to, told by their names.

By name, not by rank: a norm's scale in a stack of scanned layers has two dimensions and is no matrix.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class AllExcept:
    """An Optax mask: True for every parameter whose name the regular expression is not found in.

    The default keeps weight decay away from norms and biases, so that it acts on matrices and embeddings (as nanoGPT).
    """

    pattern: str = r"(^|/)(scale|bias)$"

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from error

    def __call__(self, params: Mapping[str, Any]) -> dict[str, bool]:
        chosen = {name: re.search(self.pattern, name) is None for name in params}
        if all(chosen.values()):
            raise ValueError(
                f"pattern {self.pattern!r} matches no parameter name, such as {', '.join(sorted(params)[:3])}; "
                "correct it, or leave the mask away"
            )
        return chosen
