"""Documents as Arrow record batches, and what a step may do to one: change it, or drop it with a reason.

A step is a callable RecordBatch -> RecordBatch that keeps the rows and their order. It changes columns (`with_column`)
or writes a reason where the document is to go (`drop`); who runs it counts the reasons and takes those rows away before
the next step. So a step sees only documents that all steps before it kept, and never how batches were made: what it
does to a document may depend on nothing else.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute

TEXT_COLUMNS = ("text", "source", "domain", "language", "licence", "date", "url", "path")
SCHEMA = pa.schema(
    [
        ("file", pa.int32()),  # number of the part, and of the document in it: together the document's name
        ("row", pa.int64()),
        *((name, pa.large_string()) for name in TEXT_COLUMNS),
        ("quality", pa.float32()),  # of the step that scores, else 0
        ("scores", pa.map_(pa.string(), pa.float32())),  # by name, of all steps that measured the document
        ("labels", pa.list_(pa.string())),  # what steps found in it, counted after every step
        ("reason", pa.string()),  # null: kept
    ]
)
DEFAULTS = {"quality": 0.0, "scores": (), "labels": ()}
Step = Callable[[pa.RecordBatch], pa.RecordBatch]


def batch_of(records: Sequence[dict]) -> pa.RecordBatch:
    """Records with any of SCHEMA's columns; text is "", quality 0, scores and labels none, reason null where they say
    nothing."""
    columns = []
    for field in SCHEMA:
        default = "" if field.name in TEXT_COLUMNS else DEFAULTS.get(field.name)
        columns.append(pa.array([record.get(field.name, default) for record in records], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def column(batch: pa.RecordBatch, name: str) -> list:
    return batch.column(SCHEMA.get_field_index(name)).to_pylist()


def with_column(batch: pa.RecordBatch, name: str, values: Sequence) -> pa.RecordBatch:
    index = SCHEMA.get_field_index(name)
    return batch.set_column(index, SCHEMA.field(index), pa.array(values, SCHEMA.field(index).type))


def drop(batch: pa.RecordBatch, reasons: Sequence[str | None]) -> pa.RecordBatch:
    """`reasons` say for each document why it goes; None: it stays."""
    return with_column(batch, "reason", reasons)


def scores_of(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """What a step measured under `name`, float64 [documents]; nan for a document that it did not measure."""
    return np.array([dict(told or ()).get(name, np.nan) for told in column(batch, "scores")], np.float64)


def with_scores(batch: pa.RecordBatch, name: str, values: np.ndarray) -> pa.RecordBatch:
    """`values` beside what was measured before; nan leaves a document without."""
    told = [dict(one or ()) for one in column(batch, "scores")]
    for one, value in zip(told, values.tolist(), strict=True):
        if not np.isnan(value):
            one[name] = value
    return with_column(batch, "scores", [sorted(one.items()) for one in told])


def map_texts(batch: pa.RecordBatch, function: Callable[[str], str]) -> pa.RecordBatch:
    """Each text changed; a document whose text became empty is dropped as "empty"."""
    texts = [function(text) for text in column(batch, "text")]
    return drop(with_column(batch, "text", texts), [None if text.strip() else "empty" for text in texts])


def split_kept(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """(those without a reason, those with one)."""
    kept = batch.column(SCHEMA.get_field_index("reason")).is_null()
    return batch.filter(kept), batch.filter(pa.compute.invert(kept))
