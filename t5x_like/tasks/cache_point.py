"""Where a SeqIO task is cut: what of it runs once, in `prepare`, and which objective the pipeline runs every epoch.

after the CacheDatasetPlaceholder   also run in prepare   objective
SpanCorruption()                                          SpanCorruption()
f, SpanCorruption()                 f, and said so        SpanCorruption()
append_eos_after_trim                                     Supervised(append_eos=True)
append_eos                          append_eos            Supervised(append_eos=False)
f                                   f, and said so        Supervised(append_eos=False)
t5's span_corruption                refused: its result depends on sequence_length or on a seed
"""

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import seqio

from t5x_like.objectives.supervised import Supervised
from t5x_like.objectives.table import OBJECTIVES


class Cut(NamedTuple):
    """`offline` is the task up to the cut, as a SeqIO task whose steps all stand before its placeholder."""

    offline: seqio.Task
    objective: Any
    notes: list[str]


def cut(task: seqio.Task) -> Cut:
    steps = list(task.preprocessors)
    places = [i for i, step in enumerate(steps) if isinstance(step, seqio.CacheDatasetPlaceholder)]
    before, after = (steps[: places[0]], steps[places[0] + 1 :]) if places else ([], steps)
    ours = [i for i, step in enumerate(after) if objective_of(step) is not None]
    if ours and ours[0] + 1 < len(after):
        raise ValueError(
            f"task {task.name}: {step_name(after[ours[0] + 1])} stands after {step_name(after[ours[0]])}, which must "
            "be the last step: it fits its examples to the rows and ends them with EOS itself"
        )
    foreign = after[: ours[0]] if ours else after
    objective = objective_of(after[ours[0]]) if ours else Supervised(append_eos=False)
    if not ours and foreign and foreign[-1] is seqio.preprocessors.append_eos_after_trim:
        foreign, objective = foreign[:-1], Supervised(append_eos=_every_feature_adds_eos(task))
    for step in foreign:
        _check_repeatable(task, step)
    notes = []
    if not places:
        notes.append("has no CacheDatasetPlaceholder, so all its steps before the objective run once, in prepare")
    elif foreign:
        names = ", ".join(step_name(step) for step in foreign)
        notes.append(f"runs {names} once, in prepare, though it stands after the CacheDatasetPlaceholder")
    offline = task.replace(preprocessors=[*before, *foreign, seqio.CacheDatasetPlaceholder()])
    _check_features(task, objective)
    return Cut(offline, objective, notes)


def objective_of(step: Any) -> Any | None:
    """The step itself where it is an objective of ours, else None."""
    return step if OBJECTIVES.get(type(step).__name__) is type(step) else None


def step_name(step: Callable) -> str:
    objective = objective_of(step)
    if objective is not None:
        return type(objective).__name__
    return seqio.utils.function_name(step) or type(step).__name__


def describe_step(step: Callable) -> str:
    """A text that changes when what the step does changes: name, source digest, and bound arguments."""
    if isinstance(step, functools.partial):
        return f"{describe_step(step.func)}({step.args!r}, {sorted(step.keywords.items())!r})"
    try:
        source = inspect.getsource(inspect.unwrap(step))
    except (TypeError, OSError):  # a callable object, or code without a file
        source = type(step).__qualname__
    return f"{step_name(step)}:{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def _check_repeatable(task: seqio.Task, step: Callable) -> None:
    arguments = set(inspect.signature(step).parameters)
    if depends := sorted(arguments & {"sequence_length", "seed", "seeds"}):
        raise ValueError(
            f"task {task.name}: {step_name(step)} depends on {', '.join(depends)}, so it cannot run once in prepare; "
            f"put one of our objectives in its place ({', '.join(sorted(OBJECTIVES))}, see t5x_like/objectives)"
        )


def _every_feature_adds_eos(task: seqio.Task) -> bool:
    adds = {name: feature.add_eos for name, feature in task.output_features.items()}
    if len(set(adds.values())) > 1:
        raise ValueError(
            f"task {task.name}: add_eos is {adds}; append_eos_after_trim is understood for all features or none"
        )
    return any(adds.values())


def _check_features(task: seqio.Task, objective: Any) -> None:
    if isinstance(objective, Supervised) and not {"inputs", "targets"} <= set(task.output_features):
        raise ValueError(
            f"task {task.name} has no objective and its output features are {sorted(task.output_features)}: give it "
            "'inputs' and 'targets', or end its preprocessors with an objective, e.g. CausalLM()"
        )
    for name, feature in task.output_features.items():
        if feature.rank != 1:
            raise ValueError(
                f"task {task.name}: feature {name} has rank {feature.rank}; only sequences of ids (1) are trained on"
            )
