"""The prepared dataset: what `prepare` writes and a training host reads. Nothing here imports TensorFlow, and opening
a folder never imports or unpickles a name found in it.

  DIR/<task>/task.json                              features, objective as data, vocabulary, counts, fingerprint
  DIR/<task>/<split>-00000-of-00008.array_record    records of one example (a document, or a part of a long one) or
                                                    of several short ones, which are read and shuffled together
  DIR/<task>/<tokenizer file>                       a copy
  DIR/<mixture>.mixture.json                        {"name": ..., "tasks": {task: rate}}
"""

import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import re
import struct

import numpy as np
from array_record.python import array_record_module

from t5x_like.data.ragged import Documents, Ragged
from t5x_like.vocabularies import load

FORMAT = 2
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # random access: 6 us a record, against 360 with read-ahead


def check_name(name: str) -> str:
    """A task or mixture name becomes a folder name, so it may not lead anywhere else."""
    if not NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: use letters, digits, '_', '-' and '.', and do not begin with '.' or '-'")
    return name


def encode_record(examples: list[dict[str, np.ndarray]], ends: list[bool], dtypes: dict[str, str]) -> bytes:
    """Several examples as bytes, little-endian; `ends` says which of them end their documents.

    uint32 n | uint8 ends[n] | uint32 lengths[n] of each feature | the ids of all examples, one feature after another
    """
    lengths = [[len(example[name]) for example in examples] for name in dtypes]
    header = struct.pack("<I", len(ends)) + bytes(ends) + np.array(lengths, "<u4").tobytes()
    little = {name: np.dtype(dtype).newbyteorder("<") for name, dtype in dtypes.items()}
    ids = (np.asarray(example[name]).astype(dtype).tobytes() for name, dtype in little.items() for example in examples)
    return header + b"".join(ids)


def decode_records(records: list[bytes], dtypes: dict[str, str]) -> Documents:
    """The inverse of `encode_record`, for many records at once."""
    counts = [int.from_bytes(record[:4], "little") for record in records]
    ends = [np.frombuffer(record, np.uint8, n, 4) for record, n in zip(records, counts, strict=True)]
    heads = [np.frombuffer(record, "<u4", n * len(dtypes), 4 + n) for record, n in zip(records, counts, strict=True)]
    begins = [4 + n + 4 * n * len(dtypes) for n in counts]
    features = {}
    for column, (name, dtype) in enumerate(dtypes.items()):
        lengths = [head[n * column : n * (column + 1)] for head, n in zip(heads, counts, strict=True)]
        stops = [b + int(l.sum()) * np.dtype(dtype).itemsize for b, l in zip(begins, lengths, strict=True)]
        data = b"".join(record[b:e] for record, b, e in zip(records, begins, stops, strict=True))
        values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(np.int32)
        features[name], begins = Ragged(values, np.concatenate(lengths).astype(np.int64)), stops
    return Documents(features, np.concatenate(ends).astype(bool))


class ShardWriter:
    """Writes one shard under a temporary name; `close` renames it and returns its row of task.json.

    tokens_per_record   examples are put into one record until it has so many tokens, all features together: to read a
                        record costs 10 us, whatever it holds
    """

    def __init__(self, path: str | os.PathLike, dtypes: dict[str, str], *, tokens_per_record: int = 4096):
        self.path, self.dtypes, self.examples, self.records = pathlib.Path(path), dtypes, 0, 0
        self._tokens_per_record, self._waiting, self._ends, self._tokens = tokens_per_record, [], [], 0
        self._temporary = self.path.with_name(self.path.name + ".tmp")
        self._writer = array_record_module.ArrayRecordWriter(str(self._temporary), "group_size:1")

    def write(self, features: dict[str, np.ndarray], *, ends_document: bool = True) -> None:
        self._waiting.append(features)
        self._ends.append(ends_document)
        self._tokens += sum(len(features[name]) for name in self.dtypes)
        self.examples += 1
        if self._tokens >= self._tokens_per_record:
            self._write_record()

    def _write_record(self) -> None:
        self._writer.write(encode_record(self._waiting, self._ends, self.dtypes))
        self._waiting, self._ends, self._tokens = [], [], 0
        self.records += 1

    def close(self) -> dict:
        if self._waiting:
            self._write_record()
        self._writer.close()
        with self._temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        num_bytes = self._temporary.stat().st_size
        self._temporary.rename(self.path)
        counts = {"examples": self.examples, "records": self.records}
        return {"file": self.path.name, **counts, "bytes": num_bytes, "sha256": digest}


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedTask:
    name: str
    folder: pathlib.Path
    manifest: dict
    vocabulary: load.Vocabulary

    @property
    def dtypes(self) -> dict[str, str]:
        return {name: feature["dtype"] for name, feature in self.manifest["features"].items()}

    def split(self, name: str) -> "PreparedSplit":
        if name not in self.manifest["splits"]:
            splits = sorted(self.manifest["splits"])
            raise ValueError(f"task {self.name} in {self.folder} has no split {name!r}: it has {splits}")
        return PreparedSplit(self, name)


class PreparedSplit:
    """Random access to the records of one split, in the order of its shards. Shards are opened when first read."""

    def __init__(self, task: PreparedTask, name: str):
        self.task, self.name = task, name
        self.counts = task.manifest["splits"][name]
        self._paths = [task.folder / shard["file"] for shard in self.counts["shards"]]
        self._ends = np.cumsum([shard["records"] for shard in self.counts["shards"]])
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        for path, shard in zip(self._paths, self.counts["shards"], strict=True):
            num_bytes = path.stat().st_size if path.exists() else 0
            if num_bytes != shard["bytes"]:
                raise ValueError(f"{path} has {num_bytes} bytes, not {shard['bytes']} as prepared: run prepare again")
        if not len(self):
            raise ValueError(f"split {name!r} of task {task.name} in {task.folder} is empty: prepare some text")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def digest(self) -> str:
        """What the split holds, in one word: SHA-256 over the digests of its shards, in order."""
        return hashlib.sha256("".join(shard["sha256"] for shard in self.counts["shards"]).encode()).hexdigest()

    @property
    def tokens_per_record(self) -> float:
        """Mean over records of the tokens of all features together."""
        return max(sum(self.counts["tokens"].values()) / len(self), 1.0)

    def read(self, indices: np.ndarray) -> Documents:
        """The records at `indices`, in that order; raises when a shard is damaged."""
        shard_of = np.searchsorted(self._ends, indices, side="right")
        records: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            first = self._ends[shard] - self.counts["shards"][shard]["records"]
            for place, record in zip(here, self._read_shard(shard, indices[here] - first), strict=True):
                records[place] = record
        return decode_records(records, self.task.dtypes)

    def _read_shard(self, shard: int, indices: np.ndarray) -> list[bytes]:
        try:
            if shard not in self._readers:
                self._readers[shard] = array_record_module.ArrayRecordReader(str(self._paths[shard]), _READ_OPTIONS)
            return self._readers[shard].read(indices.tolist())
        except (ValueError, RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self._paths[shard]} is damaged: run prepare again ({reason})") from error


def open_task(folder: str | os.PathLike) -> PreparedTask:
    folder = pathlib.Path(folder)
    path = folder / "task.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} is not a prepared task: there is no task.json in it{_nearest(folder)}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): run prepare again") from None
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path} has format {manifest.get('format')}, this version reads {FORMAT}: run prepare again")
    return PreparedTask(manifest["name"], folder, manifest, load.open_vocabulary(manifest["vocabulary"], folder))


def open_mixture(directory: str | os.PathLike, name: str) -> list[tuple[PreparedTask, float]]:
    """The tasks of a prepared mixture with their rates, or a single task with rate 1."""
    directory = pathlib.Path(directory)
    path = directory / f"{check_name(name)}.mixture.json"
    if not path.exists():
        return [(open_task(directory / name), 1.0)]
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    opened = [(open_task(directory / check_name(task)), float(rate)) for task, rate in tasks.items()]
    first = opened[0][0].manifest["vocabulary"]
    for task, _ in opened:
        if task.manifest["vocabulary"] != first:
            raise ValueError(f"tasks {opened[0][0].name} and {task.name} of mixture {name} have different vocabularies")
    return opened


def _nearest(folder: pathlib.Path) -> str:
    if not folder.parent.is_dir():
        return f", nor is there a folder {folder.parent}"
    names = {path.parent.name for path in folder.parent.glob("*/task.json")}
    names |= {path.name.removesuffix(".mixture.json") for path in folder.parent.glob("*.mixture.json")}
    near = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.0)
    return f"; did you mean {near[0]}?" if near else f"; {folder.parent} holds no prepared task: run `t5x_like prepare`"
