"""Which one of several copies stays: policies, by name, over keys that tell which document, and what is known of it.

  source    of the source that the recipe names first, and of that the first document
  earliest  the one with the earliest date; those without a date come last
  longest   the one with most characters
  best      the one with the highest quality

Every policy ends with the name of the document, (file, row), so that the same one stays whatever the order of work.
Documents of earlier corpora (`earlier_keys`) stand before all others: what is like one of them goes.
"""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from t5x_like.corpus import mapped
from t5x_like.corpus.documents import column, drop


class Choice(NamedTuple):
    """What a step over all documents chose: what goes, sorted out later by (file, row); counts by what was counted; and
    of a step that finds groups of documents what `duplicate_clusters` tells of them."""

    gone: np.ndarray
    counts: dict[str, int]
    clusters: dict | None = None


POLICIES = {
    "source": lambda keys: (keys["row"], keys["file"]),
    "earliest": lambda keys: (keys["row"], keys["file"], keys["date"]),
    "longest": lambda keys: (keys["row"], keys["file"], -keys["length"]),
    "best": lambda keys: (keys["row"], keys["file"], -keys["quality"]),
}
NAME = np.dtype([("file", np.int32), ("row", np.int64)])
ABOUT = ("file", "row", "length", "quality", "date")
_MANIFEST = b"t5x_like index"
EARLIER = -1  # the file of all documents of earlier corpora
UNDATED = np.iinfo(np.int64).max


def check_policy(policy: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"keep {policy!r}: choose one of {', '.join(POLICIES)}")


def about(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns ABOUT of every document, which the policies ask for."""
    return {
        "file": pa.array(column(batch, "file"), pa.int32()),
        "row": pa.array(column(batch, "row"), pa.int64()),
        "length": pa.array([len(text) for text in column(batch, "text")], pa.int64()),
        "quality": pa.array(column(batch, "quality"), pa.float32()),
        "date": pa.array(map(date_number, column(batch, "date")), pa.int64()),
    }


def date_number(date: str) -> int:
    """2024-11-26T09:30:00Z as 20241126093000; what is left out is 0."""
    digits = re.sub(r"\D", "", date)[:14]
    return int(digits.ljust(14, "0")) if digits else UNDATED


def columns_of(keys: pa.Table) -> dict[str, np.ndarray]:
    return {name: keys.column(name).to_numpy() for name in ABOUT}


def all_but_one(keys: dict[str, np.ndarray], group: np.ndarray, policy: str) -> np.ndarray:
    """Indices of documents that go: of each group all but the one that the policy prefers, and none of EARLIER."""
    order = np.lexsort((*POLICIES[policy](keys), keys["file"] != EARLIER, group))
    is_first = np.ones(len(order), bool)
    is_first[1:] = group[order][1:] != group[order][:-1]
    gone = np.sort(order[~is_first])
    return gone[keys["file"][gone] != EARLIER]


def names_of(keys: dict[str, np.ndarray], indices: np.ndarray) -> np.ndarray:
    names = np.empty(len(indices), NAME)
    names["file"], names["row"] = keys["file"][indices], keys["row"][indices]
    return names


def drop_named(batch: pa.RecordBatch, names: np.ndarray, reason: str) -> pa.RecordBatch:
    """`names` of documents of this batch, dropped for one reason."""
    gone = np.isin(batch.column(1).to_numpy(), names["row"])
    return drop(batch, [reason if one else None for one in gone.tolist()])


def with_earlier(keys: pa.Table, paths: Sequence[str]) -> pa.Table:
    """`keys`, and those that `write_index` left at `paths`, as documents of the file EARLIER."""
    tables = [keys]
    for path in paths:
        table = open_index(path).read_all().replace_schema_metadata()
        place = table.schema.get_field_index("file")
        earlier = pa.array(np.full(len(table), EARLIER, np.int32))
        tables.append(table.set_column(place, table.schema.field(place), earlier))
    return pa.concat_tables(tables)


def write_index(keys: pa.Table, gone: np.ndarray, path: str, made_by: dict) -> None:
    """The keys of all documents, earlier ones too, but those at the indices `gone`; whole or not at all.

    An Arrow file; its manifest (`made_by`, and how many documents) is the metadata of its schema.
    """
    stays = np.ones(len(keys), bool)
    stays[gone] = False
    manifest = json.dumps({"made by": made_by, "documents": int(stays.sum())})
    temporary = pathlib.Path(f"{path}.{os.getpid()}.tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    schema = keys.schema.with_metadata({_MANIFEST: manifest})
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
            begin = 0
            for batch in keys.to_batches():
                kept = batch.filter(pa.array(stays[begin : begin + len(batch)]))
                out.write_batch(kept.replace_schema_metadata(schema.metadata))
                begin += len(batch)
                mapped.let_go()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_index(earlier: Sequence[str], index: str, made_by: dict) -> None:
    """Before any work: that earlier indices are there and hold keys as `made_by` (the step, what its keys depend on)
    makes them, and that the new one is none of them."""
    for path in earlier:
        manifest = json.loads((open_index(path).schema.metadata or {}).get(_MANIFEST, "{}"))
        theirs = manifest.get("made by", {})
        if differ := [name for name in made_by if theirs.get(name) != made_by[name]]:
            told = (", ".join(f"{name} {one.get(name)}" for name in differ) for one in (theirs, made_by))
            raise ValueError(
                f"earlier {path} was made with {next(told)}, this step has {next(told)}: give both the same, or make "
                "the index again"
            )
    if index and index in earlier:
        raise ValueError(f"index {index} is one of the earlier ones: give it a name of its own")


def open_index(path: str) -> pa.RecordBatchFileReader:
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"earlier {path}: no such index; it is what a step with index={path!r} writes")
    try:
        return mapped.open_mapped(path)
    except ValueError as error:
        raise ValueError(
            f"earlier {path} is no index, or a damaged one ({error}); it is what a step with index={path!r} writes"
        ) from None
