"""Worker of data_pipeline.py: our pipeline on one workload.

python benchmarks/pipeline_ours.py FOLDER WORKLOAD NUM_STREAMS NUM_BATCHES LAUNCHED
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import workloads
from t5x_like.data import prepared, rendering
from t5x_like.data.pipeline import Pipeline
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.vocabularies import load

IMPORTED = time.time()
OBJECTIVE = {"spans": "SpanCorruption", "single": "CausalLM", "pairs": "Supervised"}


def write_prepared(directory: pathlib.Path, workload: str, docs: dict[str, list[np.ndarray]]) -> None:
    """`docs` as a prepared task of the byte vocabulary, as `t5x_like prepare` writes it."""
    folder = directory / workload
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = {side: "uint16" for side in docs}
    writer = prepared.ShardWriter(folder / "train-00000-of-00001.array_record", dtypes)
    rows = [dict(zip(docs, row, strict=True)) for row in zip(*docs.values(), strict=True)]
    for row in rows:
        writer.write(row)
    tokens = {side: int(sum(map(len, sequences))) for side, sequences in docs.items()}
    manifest = {
        "format": prepared.FORMAT,
        "name": workload,
        "features": {side: {"dtype": dtype, "add_eos": True} for side, dtype in dtypes.items()},
        "objective": {"name": OBJECTIVE[workload], "fields": {}},
        "vocabulary": load.describe("byte", None, extra_ids=workloads.EXTRA_IDS),
        "splits": {"train": {"examples": len(rows), "tokens": tokens, "shards": [writer.close()]}},
    }
    (folder / "task.json").write_text(json.dumps(manifest))


def real_places(batch) -> dict[str, np.ndarray]:
    places = {"targets": batch.segment_ids}
    return places if batch.encoder is None else {"inputs": batch.encoder.segment_ids, **places}


def main(folder: str, workload: str, num_streams: str, num_batches: str, launched: str) -> None:
    lengths = workloads.LENGTHS[workload]
    pipeline = Pipeline(
        directory=folder,
        mixture=workload,
        lengths=lengths,
        batch_size=workloads.BATCH_SIZE,
        num_streams=int(num_streams),
        render=rendering.encoder_decoder if "inputs" in lengths else rendering.decoder_only,
    )
    batches = pipeline.train_rows(OBJECTIVES).prefetched()
    measured = workloads.time_batches(
        batches, real_places, launched=float(launched), imported=IMPORTED, warm_up=3, num_batches=int(num_batches)
    )
    state = json.dumps(batches.get_state())
    batches.close()
    workloads.report({**measured, "state_bytes": len(state)})


if __name__ == "__main__":
    main(*sys.argv[1:])
