"""One shard of a prepared task: documents of one part of the source, tokenized by SeqIO, checked and written."""

import dataclasses
import itertools
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import seqio
import tensorflow as tf

from t5x_like.data.prepared import ShardWriter
from t5x_like.objectives.supervised import Supervised
from t5x_like.tasks.cache_point import Cut
from t5x_like.tasks.held_stderr import held_stderr
from t5x_like.tasks.sources import Corpus, Reading
from t5x_like.vocabularies.special_tokens import SpecialTokens

ID_FEATURES = ("inputs", "targets")  # all others say something about each token of the targets
_REPORT_TOKENS = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class ShardJob:
    """Everything that decides the bytes of a shard, but for the task itself."""

    split: str
    index: int
    num_shards: int
    folder: str
    dtypes: dict[str, str]
    max_tokens_per_record: int
    vocab_size: int
    special: SpecialTokens

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.folder, f"{self.split}-{self.index:05d}-of-{self.num_shards:05d}.array_record")

    @property
    def stats_path(self) -> pathlib.Path:
        return self.path.with_name(self.path.name + ".json")


def finished(job: ShardJob) -> dict | None:
    """The counts of a shard that an earlier, interrupted run completed."""
    if not job.stats_path.exists() or not job.path.exists():
        return None
    stats = json.loads(job.stats_path.read_text(encoding="utf-8"))
    return stats if job.path.stat().st_size == stats["shard"]["bytes"] else None


def write_shard(cut: Cut, job: ShardJob, report: Callable[[int], None]) -> dict:
    """Writes the shard and, beside it, its counts, which it returns. `report` is told of tokens as they are written."""
    reading, counts, dropped, tokens = Reading(Counter(), []), Counter(), Counter(), Counter()
    writer = ShardWriter(job.path, job.dtypes)
    try:
        unreported = 0
        for document in _documents(cut, job, reading):
            features = {name: document[name] for name in job.dtypes}
            if reason := _reason(cut, job, features):
                dropped[reason] += 1
                continue
            for record, ends in _records(features, job.max_tokens_per_record):
                writer.write(record, ends_document=ends)
            num_tokens = {name: len(ids) for name, ids in features.items() if name in ID_FEATURES}
            tokens.update(num_tokens)
            counts.update(_size_of_text(document.get("targets_pretokenized")), documents=1)
            unreported += sum(num_tokens.values())
            if unreported > _REPORT_TOKENS:
                report(unreported)
                unreported = 0
        shard = writer.close()
    except BaseException:
        job.path.with_name(job.path.name + ".tmp").unlink(missing_ok=True)  # frees the space on a full disk
        raise
    report(unreported)
    read = {reason: n for reason, n in reading.counts.items() if reason != "documents"}
    stats = {
        "split": job.split,
        "shard": shard,
        "documents": counts["documents"],
        "tokens": {name: tokens[name] for name in job.dtypes},
        "characters": counts["characters"],
        "bytes": counts["bytes"],
        "dropped": dict(sorted((dropped + Counter(read)).items())),
    }
    temporary = job.stats_path.with_name(job.stats_path.name + ".tmp")
    temporary.write_text(json.dumps(stats), encoding="utf-8")
    os.replace(temporary, job.stats_path)
    return stats


def offline_dataset(cut: Cut, split: str, shard_info: seqio.ShardInfo | None, reading: Reading) -> tf.data.Dataset:
    """The documents of one shard after the steps that run in prepare; the same documents as in SeqIO's own sharding."""
    source = cut.offline.source
    if isinstance(source, Corpus):
        dataset = source.dataset(split, shard_info, reading)
    elif shard_info is None:
        dataset = source.get_dataset(split=split, shuffle=False)
    elif source.supports_arbitrary_sharding or len(source.list_shards(split)) >= shard_info.num_shards:
        dataset = source.get_dataset(split=split, shuffle=False, shard_info=shard_info)
    else:
        dataset = source.get_dataset(split=split, shuffle=False).shard(shard_info.num_shards, shard_info.index)
    with held_stderr():  # TensorFlow Text says on stderr that a tokenizer does not normalise
        return cut.offline.preprocess_precache(dataset, seed=0)


def numpy_documents(name: str, dataset: tf.data.Dataset, reading: Reading) -> Iterator[dict]:
    """Iterates, and gives an error of the reader as the reader raised it, without TensorFlow's traceback around it."""
    try:
        documents = dataset.as_numpy_iterator()
        with held_stderr():  # as in offline_dataset: some of it is made when it is first asked
            first = list(itertools.islice(documents, 1))
        yield from itertools.chain(first, documents)
    except tf.errors.OpError as error:
        if reading.errors:
            raise reading.errors[0] from None
        raise ValueError(f"task {name}: {error.message.strip().splitlines()[-1]}") from error


def _documents(cut: Cut, job: ShardJob, reading: Reading) -> Iterator[dict]:
    shard_info = seqio.ShardInfo(job.index, job.num_shards) if job.num_shards > 1 else None
    dataset = offline_dataset(cut, job.split, shard_info, reading)
    check_element_spec(cut.offline.name, dataset.element_spec, list(job.dtypes))
    return numpy_documents(cut.offline.name, dataset, reading)


def check_element_spec(name: str, spec: dict, features: list[str]) -> None:
    for feature in features:
        if feature not in spec:
            raise ValueError(f"task {name}: after the steps of prepare there is no {feature!r}, only {sorted(spec)}")
        if not spec[feature].dtype.is_integer:
            raise ValueError(
                f"task {name}: {feature} is {spec[feature].dtype.name}, not ids: add seqio.preprocessors.tokenize"
            )
        if spec[feature].shape.rank != 1:
            raise ValueError(
                f"task {name}: {feature} has rank {spec[feature].shape.rank}; only sequences of ids are trained on"
            )


def _reason(cut: Cut, job: ShardJob, features: dict[str, np.ndarray]) -> str | None:
    """Why a document is dropped. Ids outside the vocabulary, or an EOS that would come twice, are the task's errors."""
    if not len(features["targets"]):
        return "empty"
    for name, ids in features.items():
        if name not in ID_FEATURES and len(ids) != len(features["targets"]):
            raise ValueError(
                f"task {cut.offline.name}: {name} has {len(ids)} numbers where the targets have "
                f"{len(features['targets'])} tokens; it says something about each of them"
            )
        if name in ID_FEATURES and len(ids) and not 0 <= ids.min() <= ids.max() < job.vocab_size:
            raise ValueError(f"task {cut.offline.name}: {name} has ids outside the vocabulary of {job.vocab_size}")
    if isinstance(cut.objective, Supervised):
        return "too_long" if max(map(len, features.values())) > job.max_tokens_per_record else None
    ids = features["targets"]
    if ids[-1] == job.special.eos:
        raise ValueError(
            f"task {cut.offline.name}: documents end with EOS before {type(cut.objective).__name__}, which appends it "
            "itself; use seqio.preprocessors.tokenize without EOS"
        )
    return "sentinel_in_text" if np.isin(ids, job.special.sentinels).any() else None


def _records(features: dict[str, np.ndarray], size: int) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Parts of at most `size` tokens, and whether a part is the last; only text alone is ever longer than one."""
    length = max(map(len, features.values()))
    for begin in range(0, length, size):
        yield {name: ids[begin : begin + size] for name, ids in features.items()}, begin + size >= length


def _size_of_text(text: bytes | None) -> dict[str, int]:
    """Of the targets before tokenizing, as seqio.preprocessors.tokenize keeps them; other tasks count neither."""
    if not isinstance(text, bytes):
        return {}
    return {"bytes": len(text), "characters": len(text.decode("utf-8", errors="replace"))}
