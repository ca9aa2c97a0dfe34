"""The prepared dataset: what `prepare` writes and a training host reads. Nothing here imports TensorFlow, and opening
a folder never imports or unpickles a name found in it.

  DIR/<task>/task.json                              features, objective as data, vocabulary, counts, fingerprint
  DIR/<task>/<split>-00000-of-00008.array_record    a record per document, or per part of a long one
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

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # random access: 6 us a record, against 360 with read-ahead
_ENDS_DOCUMENT = 1


def check_name(name: str) -> str:
    """A task or mixture name becomes a folder name, so it may not lead anywhere else."""
    if not NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: use letters, digits, '_', '-' and '.', and do not begin with '.' or '-'")
    return name


def encode_record(features: dict[str, np.ndarray], dtypes: dict[str, str], *, ends_document: bool = True) -> bytes:
    """One byte of flags, the length of each feature as uint32, then the ids in the order of `dtypes`, little-endian."""
    lengths = (len(features[name]) for name in dtypes)
    header = struct.pack(f"<B{len(dtypes)}I", _ENDS_DOCUMENT * ends_document, *lengths)
    little = {name: np.dtype(dtype).newbyteorder("<") for name, dtype in dtypes.items()}
    return header + b"".join(np.asarray(features[name]).astype(dtype).tobytes() for name, dtype in little.items())


def decode_records(records: list[bytes], dtypes: dict[str, str]) -> Documents:
    """The inverse of `encode_record`, for many records at once."""
    header = struct.Struct(f"<B{len(dtypes)}I")
    heads = np.array([header.unpack_from(record) for record in records], np.int64).reshape(-1, 1 + len(dtypes))
    features, begin = {}, np.full(len(records), header.size)
    for column, (name, dtype) in enumerate(dtypes.items(), start=1):
        end = begin + heads[:, column] * np.dtype(dtype).itemsize
        data = b"".join(record[b:e] for record, b, e in zip(records, begin.tolist(), end.tolist(), strict=True))
        features[name] = Ragged(np.frombuffer(data, dtype).astype(np.int32), heads[:, column])
        begin = end
    return Documents(features, (heads[:, 0] & _ENDS_DOCUMENT) > 0)


class ShardWriter:
    """Writes one shard under a temporary name; `close` renames it and returns its row of task.json."""

    def __init__(self, path: str | os.PathLike, dtypes: dict[str, str]):
        self.path, self.dtypes, self.examples = pathlib.Path(path), dtypes, 0
        self._temporary = self.path.with_name(self.path.name + ".tmp")
        self._writer = array_record_module.ArrayRecordWriter(str(self._temporary), "group_size:1")

    def write(self, features: dict[str, np.ndarray], *, ends_document: bool = True) -> None:
        self._writer.write(encode_record(features, self.dtypes, ends_document=ends_document))
        self.examples += 1

    def close(self) -> dict:
        self._writer.close()
        with self._temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        num_bytes = self._temporary.stat().st_size
        self._temporary.rename(self.path)
        return {"file": self.path.name, "examples": self.examples, "bytes": num_bytes, "sha256": digest}


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
        self._ends = np.cumsum([shard["examples"] for shard in self.counts["shards"]])
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
            first = self._ends[shard] - self.counts["shards"][shard]["examples"]
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
