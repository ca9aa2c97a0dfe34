"""Documents as Arrow record batches, and what a step may do to one: change it, or drop it with a reason.

A step is a callable RecordBatch -> RecordBatch that keeps the rows and their order. It changes columns (`with_column`)
or writes a reason where the document is to go (`drop`); who runs it counts the reasons and takes those rows away before
the next step. So a step sees only documents that all steps before it kept, and never how batches were made: what it
does to a document may depend on nothing else.
"""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute

TEXT_COLUMNS = ("text", "source", "domain", "language", "licence", "date", "url", "path")
SCHEMA = pa.schema(
    [
        ("file", pa.int32()),  # number of the part, and of the document in it: together the document's name
        ("row", pa.int64()),
        *((name, pa.large_string()) for name in TEXT_COLUMNS),
        ("quality", pa.float32()),  # of the step that scores, else 0
        ("reason", pa.string()),  # null: kept
    ]
)
Step = Callable[[pa.RecordBatch], pa.RecordBatch]


def batch_of(records: Sequence[dict]) -> pa.RecordBatch:
    """Records with any of SCHEMA's columns; text is "", quality 0 and reason null where they say nothing."""
    columns = []
    for field in SCHEMA:
        default = "" if field.name in TEXT_COLUMNS else 0.0 if field.name == "quality" else None
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


def map_texts(batch: pa.RecordBatch, function: Callable[[str], str]) -> pa.RecordBatch:
    """Each text changed; a document whose text became empty is dropped as "empty"."""
    texts = [function(text) for text in column(batch, "text")]
    return drop(with_column(batch, "text", texts), [None if text.strip() else "empty" for text in texts])


def split_kept(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """(those without a reason, those with one)."""
    kept = batch.column(SCHEMA.get_field_index("reason")).is_null()
    return batch.filter(kept), batch.filter(pa.compute.invert(kept))
