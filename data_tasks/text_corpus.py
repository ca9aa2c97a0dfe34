"""Any text as pretraining tasks: span corruption, prefix LM, causal LM, and a mixture of the first two.

NAME_span_corruption   NAME_prefix_lm   NAME_causal_lm   NAME_denoising
"""

import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import seqio

from t5x_like.objectives.causal_lm import CausalLM
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.tasks import held_out, readers, sources, vocabularies

EXTRA_IDS = 100  # sentinels of T5
OBJECTIVES = {"span_corruption": SpanCorruption(), "prefix_lm": PrefixLM(), "causal_lm": CausalLM()}
DENOISING_RATES = {"span_corruption": 0.5, "prefix_lm": 0.5}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*")


def register(
    *,
    name: str,
    path: str,
    tokenizer: str | None,
    held_out_fraction: float = 0.05,
    field: str = "text",
    extra_ids: int = EXTRA_IDS,
) -> None:
    """Registers the tasks over `path`: a folder of code or text, a text file, .jsonl(.gz, .zst) or .parquet.

    tokenizer           a .model (SentencePiece) or .json (`tokenizers`) file, or None for bytes
    held_out_fraction   for validation: documents of .jsonl and .parquet, else whole files, or the ends of a few texts
    """
    reader = readers.reader_for(path, field=field)
    rule = rule_for(reader, held_out_fraction)
    register_reader(name=name, reader=reader, tokenizer=tokenizer, hold_out=rule, field=field, extra_ids=extra_ids)


def register_reader(
    *,
    name: str,
    reader: readers.Reader,
    tokenizer: str | None,
    hold_out: held_out.Rule,
    field: str = "text",
    extra_ids: int = EXTRA_IDS,
) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: SeqIO takes letters, digits, '_' and '.'")
    told = {"reader": reader, "tokenizer": tokenizer, "hold_out": hold_out, "field": field, "extra_ids": extra_ids}
    for suffix, objective in OBJECTIVES.items():
        sides = ("targets",) if suffix == "causal_lm" else ("inputs", "targets")
        register_task(name=f"{name}_{suffix}", objective=objective, sides=sides, **told)
    rates = [(f"{name}_{suffix}", rate) for suffix, rate in DENOISING_RATES.items()]
    seqio.MixtureRegistry.add(f"{name}_denoising", rates)


def register_task(
    *,
    name: str,
    objective: Any,
    sides: Sequence[str],
    reader: readers.Reader,
    tokenizer: str | None,
    hold_out: held_out.Rule,
    field: str = "text",
    extra_ids: int = EXTRA_IDS,
) -> None:
    """One task: texts as they are, and an objective with rows for these `sides`."""
    feature = seqio.Feature(vocabularies.seqio_vocabulary(tokenizer, extra_ids=extra_ids), add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=sources.Corpus(reader, hold_out=hold_out),
        preprocessors=[
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": field}),
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            objective,
        ],
        output_features=dict.fromkeys(sides, feature),
    )


def write_task_file(
    folder: str,
    *,
    name: str,
    path: str,
    tokenizer: str | None,
    held_out_fraction: float = 0.05,
    field: str = "text",
    extra_ids: int = EXTRA_IDS,
) -> pathlib.Path:
    """A module that calls `register`, so that every process, and whoever reads the run later, has the same tasks."""
    place = {
        "path": str(pathlib.Path(path).resolve()),
        "tokenizer": tokenizer and str(pathlib.Path(tokenizer).resolve()),
    }
    arguments = {"name": name, **place, "held_out_fraction": held_out_fraction, "field": field, "extra_ids": extra_ids}
    readers.reader_for(path, field=field)  # a wrong path is an error now, not in the file
    lines = [
        f'"""Pretraining tasks over {path}."""',
        "",
        "from data_tasks import text_corpus",
        "",
        "text_corpus.register(",
    ]
    lines += [f"    {key}={value!r}," for key, value in arguments.items()]
    file = pathlib.Path(folder, f"{name}_tasks.py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, ")", ""]), encoding="utf-8")
    return file


def rule_for(reader: readers.Reader, fraction: float) -> held_out.Rule:
    """Shards hold documents of all kinds; of a few texts to hold out one would be a far larger share than was asked."""
    if isinstance(reader, readers.JsonLines | readers.Parquet):
        return held_out.ByDocument(fraction)
    return held_out.ByFile(fraction) if len(reader.files()) * fraction >= 1 else held_out.Tail(fraction)
