"""What both pipelines are given: the same tokenised documents, the same row lengths, and one way to take the time.

spans   files of the Python standard library as bytes, span corruption to 512 / 114, packed
single  its paragraphs as bytes, next-token prediction in rows of 512, packed
pairs   pairs of 5-100 / 5-50 tokens, EOS included, in rows of 256 / 128, packed
"""

import hashlib
import json
import pathlib
import sysconfig
import time
from collections.abc import Callable, Iterator

import numpy as np

LENGTHS = {
    "spans": {"inputs": 512, "targets": 114},
    "single": {"targets": 512},
    "pairs": {"inputs": 256, "targets": 128},
}
BATCH_SIZE = 64
EXTRA_IDS = 100
MAX_DOCUMENT = 65536  # T5's select_random_chunk takes at most so many tokens, and `prepare` cuts its records here too
NUM_BYTE_SPECIALS = 3  # pad, eos, unk
NUM_PAIRS = 100_000


def documents(workload: str, max_characters: int) -> dict[str, list[np.ndarray]]:
    """{"targets": ids of each document}, with "inputs" beside it for pairs; no EOS yet."""
    if workload == "pairs":
        rng = np.random.default_rng(0)
        return {side: random_texts(rng, longest) for side, longest in (("inputs", 100), ("targets", 50))}
    texts, total = [], 0
    for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if total >= max_characters or {"site-packages", "test", "tests"} & {*path.parts}:
            continue
        data = path.read_bytes()
        total += len(data)
        texts += [data] if workload == "spans" else data.split(b"\n\n")
    ids = [np.frombuffer(text, np.uint8).astype(np.int32) + NUM_BYTE_SPECIALS for text in texts if text]
    return {"targets": [text[i : i + MAX_DOCUMENT] for text in ids for i in range(0, len(text), MAX_DOCUMENT)]}


def random_texts(rng: np.random.Generator, longest: int) -> list[np.ndarray]:
    """Of 5 ... longest tokens when EOS has been added."""
    lengths = rng.integers(5, longest + 1, NUM_PAIRS) - 1
    return [rng.integers(NUM_BYTE_SPECIALS, 259, length).astype(np.int32) for length in lengths]


def save(folder: pathlib.Path, docs: dict[str, list[np.ndarray]]) -> None:
    """One flat array of ids and one of lengths per feature, for whoever reads no prepared folder."""
    arrays = {}
    for side, sequences in docs.items():
        arrays[f"{side}_values"] = np.concatenate(sequences)
        arrays[f"{side}_lengths"] = np.array([len(sequence) for sequence in sequences])
    np.savez(folder / "documents.npz", **arrays)


def time_batches(
    batches: Iterator, real_places: Callable, *, launched: float, imported: float, warm_up: int, num_batches: int
) -> dict:
    """Seconds and tokens of `num_batches` after `warm_up`. `real_places(batch)` is {side: array, non-zero at a token}.

    `launched` is when the process was started and `imported` when its imports were done, both in seconds since 1970.
    """
    first = next(batches)
    first_batch = time.time()
    for _ in range(warm_up - 1):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    taken = [real_places(next(batches)) for _ in range(num_batches)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    places = {side: np.stack([row[side] for row in taken]) != 0 for side in taken[0]}
    return {
        "tokens": sum(int(array.sum()) for array in places.values()),
        "fill": {side: float(array.mean()) for side, array in places.items()},
        "wall": wall,
        "cpu": cpu,
        "import_seconds": imported - launched,
        "first_batch_seconds": first_batch - imported,
        "check": hashlib.sha256(b"".join(places.tobytes() for places in real_places(first).values())).hexdigest()[:8],
    }


def report(measured: dict) -> None:
    """The last line of a worker's output is its result."""
    print(json.dumps(measured))
