"""`tasks new`: a task file of about twenty lines over one's own data, to read, change and train on with --module."""

import pathlib

from t5x_like.tasks import readers

_TEMPLATE = '''"""{name}: {path}. Train on it with --module={file}, look at it with `t5x_like tasks show {name}`."""

import functools

import seqio

from t5x_like.objectives.{module} import {objective}
from t5x_like.tasks import held_out, readers, sources, vocabularies

feature = seqio.Feature(vocabularies.seqio_vocabulary({tokenizer!r}, extra_ids=100))

seqio.TaskRegistry.add(
    "{name}",
    source=sources.Corpus(readers.{reader}, hold_out=held_out.ByDocument(0.05)),
    preprocessors=[
        functools.partial(seqio.preprocessors.rekey, key_map={keys!r}),
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),  # what stands before it runs once, in `t5x_like prepare`
        {objective}(),  # runs afresh every epoch
    ],
    output_features={{"inputs": feature, "targets": feature}},
)
'''


def new(
    name: str, data: str, *, folder: str, tokenizer: str | None = None, fields: tuple[str, ...] = ("text",)
) -> pathlib.Path:
    """Writes FOLDER/NAME.py and returns its path; two fields are inputs and targets, one is text to denoise."""
    if not name.isidentifier():
        raise ValueError(f"task name {name!r}: use letters, digits and '_', as for a Python name")
    file = pathlib.Path(folder, f"{name}.py")
    if file.exists():
        raise FileExistsError(f"{file} exists already: choose another name, or edit it")
    reader = readers.reader_for(str(pathlib.Path(data).resolve()), field=fields[0])
    if len(fields) > 2 or (len(fields) == 2 and not isinstance(reader, readers.JsonLines | readers.Parquet)):
        raise ValueError(f"fields {fields}: one field of text, or two (inputs, targets) of .jsonl or .parquet")
    if isinstance(reader, readers.JsonLines | readers.Parquet):
        described = f"{type(reader).__name__}({list(reader.paths)!r}, fields={tuple(fields)!r})"
    elif isinstance(reader, readers.TextFiles):
        described = f'TextFiles({list(reader.paths)!r}, per="paragraph")'
    else:
        described = f"CodeTree({reader.folder!r})"
    is_pair = len(fields) == 2
    text = _TEMPLATE.format(
        name=name,
        path=data,
        file=file,
        module="supervised" if is_pair else "span_corruption",
        objective="Supervised" if is_pair else "SpanCorruption",
        tokenizer=tokenizer and str(pathlib.Path(tokenizer).resolve()),
        reader=described,
        keys={"inputs": fields[0], "targets": fields[1]} if is_pair else {"targets": fields[0]},
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
