"""Muon for hidden matrices, AdamW for all else (https://kellerjordan.github.io/posts/muon; arXiv:2502.16982)."""

import re
from collections.abc import Mapping
from typing import Any

import optax
from optax.contrib import MuonDimensionNumbers

NOT_HIDDEN = r"(^|/)(scale|bias|table|types|head|embedding|.*_bias|.*table)(/|$)"
# Of the last part of a name: how many dimensions at its end are read, and written.
READ_AND_WRITTEN = {"query": (1, 2), "key": (1, 2), "value": (1, 2), "out": (2, 1)}


def muon(
    learning_rate: optax.ScalarOrSchedule,
    *,
    beta: float = 0.95,
    weight_decay: float = 0.0,
    consistent_rms: float | None = 0.2,
    newton_schulz_steps: int = 5,
    b1: float = 0.9,
    b2: float = 0.95,
    adam_weight_decay: float = 0.0,
    not_hidden: str = NOT_HIDDEN,
) -> optax.GradientTransformation:
    """Momentum made orthogonal by Newton-Schulz steps, for every matrix of the layers.

    consistent_rms   updates have this root mean square, as AdamW's do, so that both go by one learning rate
                     (arXiv:2502.16982, section 2.2); None: sqrt(max(1, rows / columns)), as in Jordan's code
    not_hidden       parameters whose name this is found in, and all with one dimension, go by AdamW

    A projection to heads is one matrix to all of them, [D, heads * head_dim]; scanned layers and experts are matrices
    of their own. The five Newton-Schulz steps are left to the compiler, which gathers a matrix that is split over fsdp
    twice in each: on fsdp 4 x tensor 2 a matrix of 1 MB has 6.6 MB sent in a step (`t5x_like plan` tells).
    """
    pattern = re.compile(not_hidden)
    hidden = optax.contrib.muon(
        learning_rate,
        ns_steps=newton_schulz_steps,
        beta=beta,
        weight_decay=weight_decay,
        consistent_rms=consistent_rms,
        muon_weight_dimension_numbers=lambda params: matrices(params, pattern),
    )
    # Optax's own second half of Muon is Nesterov's Adam.
    others = optax.adamw(learning_rate, b1=b1, b2=b2, weight_decay=adam_weight_decay)

    def label(params):
        return {name: "others" if axes is None else "hidden" for name, axes in matrices(params, pattern).items()}

    return optax.multi_transform({"hidden": hidden, "others": others}, label)


def matrices(params: Mapping[str, Any], not_hidden: re.Pattern) -> dict[str, MuonDimensionNumbers | None]:
    """Which dimensions of each parameter are the rows and the columns of its matrices; None: no matrix of a layer."""
    found = {}
    for name, param in params.items():
        read, written = READ_AND_WRITTEN.get(name.rsplit("/", 1)[-1], (1, 1))
        # A norm's scale in scanned layers has two dimensions and is no matrix: its name says so.
        if isinstance(param, optax.MaskedNode) or not_hidden.search(name) or param.ndim < read + written:
            found[name] = None
            continue
        rank = param.ndim
        first = rank - read - written
        rows, columns = tuple(range(first, first + read)), tuple(range(first + read, rank))
        found[name] = MuonDimensionNumbers(reduction_axis=rows, output_axis=columns)
    return found
