"""`Corpus`: files as the source of a SeqIO task.

  seqio.TaskRegistry.add(
      "books",
      source=sources.Corpus(readers.JsonLines(["books/*.jsonl.gz"]), hold_out=held_out.ByDocument(0.01)),
      ...
  )

The readers (text, JSON lines, Parquet, code) are in readers.py and know no TensorFlow, the rules that hold documents
out for validation in held_out.py.
"""

import collections
import itertools
import pathlib
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import seqio
import tensorflow as tf

from t5x_like.tasks import files, held_out
from t5x_like.tasks.readers import Counts, Reader


class Reading(NamedTuple):
    """What a pass over documents leaves behind: counts of what was read and dropped, and the error that ended it."""

    counts: Counts
    errors: list[Exception]


class Corpus(seqio.DataSource):
    """Documents of a reader as {field: string}, or of one reader per split, in the order of the files.

    Shards are whole files when there are enough of them, else every n-th document.
    """

    def __init__(self, reader: Reader | Mapping[str, Reader], *, hold_out: held_out.Rule | None = None):
        if isinstance(reader, Mapping):
            if hold_out is not None:
                raise ValueError(
                    f"hold_out={hold_out} with a reader per split: the readers already say what is held out"
                )
            self._rule, self._readers = held_out.Nothing(), dict(reader)
        else:
            self._rule = hold_out or held_out.Nothing()
            self._readers = dict.fromkeys(self._rule.splits, reader)
        super().__init__(splits=tuple(self._readers))

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: str) -> list[str]:
        return [str(path) for path in self.files(split)]

    def files(self, split: str) -> list[pathlib.Path]:
        reader = self._reader(split)
        return self._rule.files(split, reader.files(), reader.root())

    def num_bytes(self, split: str) -> float:
        """About how much text a split has; a compressed file counts four times its size."""
        sizes = (path.stat().st_size * (4 if path.suffix in (".gz", ".zst") else 1) for path in self.files(split))
        return sum(sizes) * self._rule.share(split)

    def fingerprint(self) -> dict:
        """What tells whether the documents are the same: how they are read, and the state of every file."""
        digests = {}
        for reader in self._readers.values():
            digests[repr(reader)] = digests.get(repr(reader)) or files.fingerprint(reader.files(), reader.root())
        return {
            "kind": type(next(iter(self._readers.values()))).__name__,
            "readers": {split: repr(reader) for split, reader in self._readers.items()},
            "hold_out": repr(self._rule),
            "fingerprint": "-".join(digests.values()),
        }

    def record_counts(self, documents: Mapping[str, int]) -> None:
        """Makes `num_input_examples`, and so SeqIO's rates by size, work once `prepare` has counted the documents."""
        self._num_input_examples = dict(documents)

    def get_dataset(
        self,
        split="train",
        shuffle=True,
        seed=None,
        shard_info=None,
        *,
        sequence_length=None,
        use_cached=False,
        num_epochs=1,
    ) -> tf.data.Dataset:
        del sequence_length, use_cached, num_epochs  # of SeqIO's signature, meant for tasks
        return self.dataset(split, shard_info, Reading(Counts(), []), shuffle_seed=seed if shuffle else None)

    def dataset(
        self, split: str, shard_info: seqio.ShardInfo | None, reading: Reading, *, shuffle_seed: int | None = None
    ) -> tf.data.Dataset:
        """The documents of one shard; counts of them, and an error that ends the reading, are left in `reading`."""

        def generate():
            try:
                yield from self.documents(split, shard_info, reading.counts, shuffle_seed=shuffle_seed)
            except Exception as error:  # TensorFlow would wrap it in a traceback
                reading.errors.append(error)
                raise

        signature = {name: tf.TensorSpec((), tf.string) for name in self._reader(split).names()}
        return tf.data.Dataset.from_generator(generate, output_signature=signature)

    def documents(
        self, split: str, shard_info: seqio.ShardInfo | None, counts: Counts, *, shuffle_seed: int | None = None
    ) -> Iterator[dict[str, str]]:
        paths = self.files(split)
        if shuffle_seed is not None:
            random.Random(int(shuffle_seed)).shuffle(paths)
        index, num_shards = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        if len(paths) >= num_shards:
            return self._of_files(split, paths[index::num_shards], (0, 1), counts)
        return self._of_files(split, paths, (index, num_shards), counts)

    def _of_files(
        self, split: str, paths: list[pathlib.Path], place: tuple[int, int], counts: Counts
    ) -> Iterator[dict[str, str]]:
        reader, (index, num_shards), order = self._reader(split), place, itertools.count()
        counts_drops = (
            split == self.splits[0] or not self._rule.reads_every_file
        )  # else they would count in every split
        for path in paths:
            notes = collections.Counter()
            for item in reader.documents(path, notes):
                is_ours = next(order) % num_shards == index
                part = self._rule.part(split, item) if is_ours and isinstance(item, dict) else None
                if part is not None:
                    counts.update(notes, documents=1)
                    yield part
                elif is_ours and isinstance(item, str) and counts_drops:
                    counts.update(notes, **{item: 1})
                notes.clear()

    def _reader(self, split: str) -> Reader:
        if split not in self._readers:
            raise ValueError(f"no split {split!r}: the splits are {list(self._readers)}")
        return self._readers[split]

    def __repr__(self) -> str:
        return f"Corpus({self._readers}, hold_out={self._rule})"

    __str__ = __repr__
