"""Small prepared datasets for tests, written by the real writer; the texts are random bytes, so nothing is fetched."""

import json
import pathlib

import numpy as np

from t5x_like.data import prepared
from t5x_like.vocabularies import load


def write_task(
    directory: pathlib.Path,
    name: str,
    documents: list,
    *,
    objective: str = "SpanCorruption",
    fields: dict | None = None,
    split: str = "train",
    num_shards: int = 2,
    extra_ids: int = 100,
) -> pathlib.Path:
    """Writes `documents` (lists of ids, or {"inputs", "targets"} of them) as a prepared task of the byte vocabulary."""
    folder = pathlib.Path(directory) / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = [doc if isinstance(doc, dict) else {"targets": doc} for doc in documents]
    dtypes = {feature: "uint16" for feature in rows[0]}
    shards = []
    for shard in range(num_shards):
        path = folder / f"{split}-{shard:05d}-of-{num_shards:05d}.array_record"
        writer = prepared.ShardWriter(path, dtypes)
        for row in rows[shard::num_shards]:
            writer.write({key: np.asarray(value) for key, value in row.items()})
        shards.append(writer.close())
    tokens = {feature: int(sum(len(row[feature]) for row in rows)) for feature in dtypes}
    path = folder / "task.json"
    manifest = json.loads(path.read_text()) if path.exists() else {"splits": {}}
    manifest |= {
        "format": prepared.FORMAT,
        "name": name,
        "features": {feature: {"dtype": dtype, "add_eos": True} for feature, dtype in dtypes.items()},
        "objective": {"name": objective, "fields": fields or {}},
        "vocabulary": load.describe("byte", None, extra_ids=extra_ids),
    }
    manifest["splits"][split] = {"examples": len(rows), "tokens": tokens, "shards": shards}
    path.write_text(json.dumps(manifest))
    return folder


def write_mixture(directory: pathlib.Path, name: str, rates: dict[str, float]) -> None:
    path = pathlib.Path(directory) / f"{name}.mixture.json"
    path.write_text(json.dumps({"name": name, "tasks": rates}))


def counting_documents(count: int, *, low: int = 20, high: int = 200, seed: int = 0) -> list[np.ndarray]:
    """Documents of byte ids 3 ... 258; lengths are uniform in [low, high)."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, length) + 3).astype(np.int32) for length in rng.integers(low, high, count)]
