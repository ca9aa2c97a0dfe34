"""Examples that are predicted where they stand, as text: what the stack reads, what it answers, who may look at whom.

reads 12      <cls>Thank you<mask>inviting me<mask>your tree</s>
predicted 3    for| to| party
in place      <cls>Thank you[<mask>: for]inviting me[<mask>: to]your[ tree: party]</s>
sees          every token sees every other
"""

import itertools

import numpy as np
import rich.text

from t5x_like.data.examples import Examples, Side
from t5x_like.vocabularies import load

HIDDEN, LARGEST_GRID = "bold cyan", 40


def lines_of(side: Side, vocabulary: load.Vocabulary) -> list[tuple[str, rich.text.Text]]:
    """One example: (label, text) each."""
    reads, answers = vocabulary.pieces(side.tokens), vocabulary.pieces(side.targets)
    predicted = np.flatnonzero(side.loss_weights > 0)
    lines = [
        (f"reads {len(reads)}", rich.text.Text("".join(reads))),
        (f"predicted {len(predicted)} ", rich.text.Text("|".join(answers[i] for i in predicted))),
        ("in place ", with_answers(reads, answers, set(predicted.tolist()), follows=is_next(side))),
        ("sees ", rich.text.Text(sees(side.attn_order, side.parts))),
    ]
    if grid := grid_of(side):
        lines.append(("", rich.text.Text(grid)))
    if side.positions is not None:
        planes = [
            f"{name} {spelled(plane)}" for name, plane in zip(("place", "in blank"), side.positions.T, strict=False)
        ]
        lines.append(("positions ", rich.text.Text(", ".join(planes))))
    if side.type_ids is not None:
        lines.append(("types ", rich.text.Text(spelled(side.type_ids))))
    for name, values in side.aux.items():
        if values.ndim == 1 and values.any():
            said = ", ".join(f"{values[i]:g} at {i}" for i in np.flatnonzero(values)[:12])
            lines.append((f"{name} ", rich.text.Text(said)))
    return lines


def is_next(side: Side) -> bool:
    """Whether a place answers for the token behind it, as a language model does, and not for its own."""
    same = side.tokens[1:] == side.targets[:-1]
    weights = side.loss_weights[:-1] > 0
    return bool(weights.any() and same[weights].mean() > 0.5)


def with_answers(reads: list[str], answers: list[str], predicted: set[int], *, follows: bool) -> rich.text.Text:
    """What is read, and in brackets what it stands for; text that is predicted from what stands before it is marked."""
    text = rich.text.Text()
    for i, piece in enumerate(reads):
        if follows:
            text.append(piece, style=HIDDEN if i - 1 in predicted else "")
        elif i in predicted:
            text.append(f"[{piece}:{answers[i]}]", style=HIDDEN)
        else:
            text.append(piece)
    return text


def sees(order: np.ndarray, parts: np.ndarray | None = None) -> str:
    """Who may look at whom: a token sees those whose order is not above its own."""
    step, count = np.diff(order), len(order)
    prefix = int((order == order.min(initial=0)).sum())
    if count < 2 or (step == 0).all():
        said = "every token sees every other"
    elif (step > 0).all():
        said = "every token sees itself and those before it"
    elif (step < 0).all():
        said = "every token sees itself and those behind it"
    elif (step[: prefix - 1] == 0).all() and (step[prefix - 1 :] > 0).all():
        said = f"the first {prefix} see each other; each one behind them sees itself and all before it"
    else:
        said = f"by these orders: {spelled(order)}; a token sees those whose order is not above its own"
    if parts is not None and parts.any():
        said += (
            f"; but {parts.max() + 1} texts of {', '.join(map(str, np.bincount(parts)))} tokens see themselves alone"
        )
    return said


def sees_of(examples: Examples, index: int) -> str:
    """Of text to text, in one stack or in two."""
    if examples.inputs is None:
        return "every token sees itself and those before it"
    count = int(examples.inputs.lengths[index])
    return f"the {count} inputs see each other; each target sees them, and the targets before it"


def grid_of(side: Side) -> str:
    """A row for each token, a mark for each one that it sees; only where words do not say it, and rows are short."""
    if len(side.tokens) > LARGEST_GRID or not sees(side.attn_order).startswith("by these"):
        return ""
    parts = np.zeros_like(side.attn_order) if side.parts is None else side.parts
    visible = (side.attn_order[:, None] >= side.attn_order[None]) & (parts[:, None] == parts[None])
    return "\n" + "\n".join("".join("█" if mark else "·" for mark in row) for row in visible)


def spelled(values: np.ndarray) -> str:
    """0 0 0 5 6 7 -> 0 x 3, 5...7"""
    runs, numbers = [], values.tolist()
    for value, group in itertools.groupby(numbers):
        count = len(list(group))
        last = runs[-1] if runs else None
        if last and count == 1 and last[2] == 1 and value == last[1] + 1:
            last[1] = value
        else:
            runs.append([value, value, count])
    return ", ".join(
        f"{first}...{last}" if last != first else (f"{first} x {count}" if count > 1 else f"{first}")
        for first, last, count in runs
    )
