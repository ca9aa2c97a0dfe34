"""What is registered, and real examples of a task as text: what the model sees, what is hidden, what it predicts.

  seen        Thank you <extra_id_0> me to your party <extra_id_1></s>
  predicted   <extra_id_0> for inviting<extra_id_1> last week</s>
  in place    Thank you [0: for inviting] me to your party [1: last week]
  sees        the 9 inputs see each other; each target sees them, and the targets before it

What an Encoder predicts where it stands is shown by `show_in_place`.
On a terminal hidden text and its sentinel have one colour; in a pipe there are only the brackets.
"""

from collections.abc import Iterator
from typing import Any

import rich.console
import rich.table
import rich.text
import seqio

from t5x_like.data import ragged
from t5x_like.data.examples import Side
from t5x_like.tasks import preview, registry, show_in_place
from t5x_like.tasks.cache_point import cut, step_name
from t5x_like.tasks.preview import Preview
from t5x_like.vocabularies import load

_COLOURS = ("green", "magenta", "cyan", "yellow", "blue", "red")


def list_tasks(console: rich.console.Console) -> None:
    """A table of every registered task and mixture."""
    table = rich.table.Table("name", "source", "objective", "splits", "vocabulary", box=None)
    for name in registry.registered():
        provider = registry.find(name)
        row = _mixture_row(provider) if isinstance(provider, seqio.Mixture) else _task_row(provider)
        table.add_row(name, *(rich.text.Text(cell) for cell in row))
    console.print(table)


def show(
    name: str,
    console: rich.console.Console,
    *,
    num_examples: int = 3,
    lengths: dict[str, int] | None = None,
    split: str = "train",
    seed: int = 0,
    objective: Any | None = None,
) -> None:
    """Prints examples of a task, or of each task of a mixture; `objective`: another one than the task's own."""
    provider = registry.find(name)
    for task in provider.tasks if isinstance(provider, seqio.Mixture) else [provider]:
        found = preview.read(task, split, num_documents=32, objective=objective)
        rows = lengths or preview.default_lengths(task)
        for number, lines in enumerate(_rendered(found, rows, num_examples, seed), start=1):
            console.rule(f"{task.name}  {number} of {num_examples}", align="left")
            for label, text in lines:
                console.print(rich.text.Text(f"{label:<10}", style="bold") + text, soft_wrap=True)


def _rendered(
    found: Preview, lengths: dict[str, int], count: int, seed: int
) -> Iterator[list[tuple[str, rich.text.Text]]]:
    made = preview.examples(found, lengths, seed=seed)
    if isinstance(made, Side):
        for k in range(min(count, made.num_examples)):
            yield show_in_place.lines_of(made.cut(k, k + 1), found.vocabulary)
        return
    all_inputs = None if made.inputs is None else ragged.to_list(made.inputs)
    for k, targets in enumerate(ragged.to_list(made.targets)[:count]):
        inputs = None if all_inputs is None else all_inputs[k]
        lines = [] if inputs is None else [(f"seen {len(inputs)}", render(inputs, found.vocabulary))]
        lines.append((f"predicted {len(targets)} ", render(targets, found.vocabulary)))
        if inputs is not None and set(inputs.tolist()) & set(found.vocabulary.special.sentinels):
            lines.append(("in place ", in_place(inputs, targets, found.vocabulary)))
        lines.append(("sees ", rich.text.Text(show_in_place.sees_of(made, k))))
        yield lines


def render(ids, vocabulary: load.Vocabulary) -> rich.text.Text:
    """Pieces as text, sentinels coloured by their number."""
    place = {token: k for k, token in enumerate(vocabulary.special.sentinels)}
    text = rich.text.Text()
    for token, piece in zip(map(int, ids), vocabulary.pieces(ids), strict=True):
        text.append(piece, style=_colour(place[token]) if token in place else "")
    return text


def in_place(inputs, targets, vocabulary: load.Vocabulary) -> rich.text.Text:
    """The inputs with each sentinel replaced by "[k: what the targets say it hides]"."""
    special, hidden, current = vocabulary.special, {}, None
    place = {token: k for k, token in enumerate(special.sentinels)}
    for token in map(int, targets):
        if token in place:
            current = hidden.setdefault(token, [])
        elif current is not None and token != special.eos:
            current.append(token)
    text = rich.text.Text()
    for token, piece in zip(map(int, inputs), vocabulary.pieces(inputs), strict=True):
        if token in hidden:
            words = "".join(vocabulary.pieces(hidden[token]))
            text.append(f"[{place[token]}:{words}]", style=_colour(place[token]))
        elif token != special.eos:
            text.append(piece)
    return text


def _task_row(task: seqio.Task) -> list[str]:
    vocabularies = {type(f.vocabulary).__name__.removesuffix("Vocabulary") for f in task.output_features.values()}
    try:
        objective = step_name(cut(task).objective)
    except ValueError:  # said in full by `tasks check` and `prepare`
        objective = "(cannot be prepared)"
    source = type(task.source).__name__
    return [source, objective, ", ".join(task.source.splits), ", ".join(sorted(vocabularies))]


def _mixture_row(mixture: seqio.Mixture) -> list[str]:
    names = ", ".join(task.name for task in mixture.tasks)
    return [f"mixture of {names}", "", ", ".join(sorted(mixture.splits)), ""]


def _colour(number: int) -> str:
    return f"bold {_COLOURS[number % len(_COLOURS)]}"
