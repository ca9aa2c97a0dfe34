"""Writes tests/golden/t5_preprocessors.json: `python -m tests.golden.make.t5_preprocessors`, where t5 is installed.

The functions of t5.data.preprocessors on masks and seeds that are written beside what they gave, how often they hide
each place of a text of 30 tokens, and the rows of seqio's feature converters. The vocabulary has 100 ids; its sentinels
count down from 99.
"""

import importlib.metadata
import json
import pathlib

import numpy as np
import seqio
import tensorflow as tf
from t5.data import preprocessors

GOLDEN = pathlib.Path("tests/golden/t5_preprocessors.json")
VOCABULARY = seqio.PassThroughVocabulary(size=100)
DRAWS, LENGTH = 4000, 30
MASKS = ["00010110", "11000001", "0000000011110000", "10101010101", "0111111110", "01", "10"]
ON_MASKS = (
    "noise_span_to_unique_sentinel",
    "nonnoise_span_to_unique_sentinel",
    "noise_token_to_sentinel",
    "noise_span_to_sentinel",
    "drop_noise_tokens",
    "drop_nonnoise_tokens",
)
SEEDS = [[1, 2], [3, 4]]
SIZES = [*range(2, 40), 64, 100, 128, 255, 512, 568, 1024, 2048]
ROWS = [(512, 0.15, 3.0), (512, 0.15, 8.0), (512, 0.5, 3.0), (512, 0.15, 64.0), (128, 0.15, 3.0), (64, 0.3, 3.0)]


def spans(length: int, seeds, density: float, mean: float, roll: bool = False) -> np.ndarray:
    mask = preprocessors.random_spans_noise_mask(
        length, seeds=seeds, noise_density=density, mean_noise_span_length=mean, random_roll=roll
    )
    return mask.numpy().astype(int)


def on_masks() -> list[dict]:
    cases = []
    for mask in MASKS:
        tokens = tf.range(1, len(mask) + 1)
        noise = tf.constant([bit == "1" for bit in mask])
        made = {n: getattr(preprocessors, n)(tokens, noise, VOCABULARY, seeds=SEEDS) for n in ON_MASKS}
        cases.append({"mask": mask, **{name: ids.numpy().tolist() for name, ids in made.items()}})
    return cases


def how_often() -> dict:
    """The share of draws in which each of 30 places is noise, and how long spans are; by seeds [k, 0], [0, k]."""
    drawn = {"plain": [], "rolled": []}
    draw = tf.function(
        lambda k: [
            preprocessors.random_spans_noise_mask(
                LENGTH, seeds=tf.stack([[k, 0], [0, k]]), noise_density=0.3, mean_noise_span_length=3.0
            ),
            preprocessors.random_spans_noise_mask(
                LENGTH,
                seeds=tf.stack([[k, 0], [0, k]]),
                noise_density=0.3,
                mean_noise_span_length=3.0,
                random_roll=True,
            ),
        ]
    )
    for k in range(DRAWS):
        for name, mask in zip(drawn, draw(tf.constant(k)), strict=True):
            drawn[name].append(mask.numpy())
    masks = np.stack(drawn["plain"])
    edges = np.diff(np.pad(masks.astype(int), ((0, 0), (1, 1))), axis=1)
    sizes = np.argwhere(edges < 0)[:, 1] - np.argwhere(edges > 0)[:, 1]
    prefix = [
        int(preprocessors.random_prefix_noise_mask(LENGTH, 0.25, seeds=[[k, k]]).numpy().sum()) for k in range(500)
    ]
    return {
        "draws": DRAWS,
        "length": LENGTH,
        "density": 0.3,
        "mean": 3.0,
        "plain": [round(float(share), 6) for share in masks.mean(axis=0)],
        "rolled": [round(float(share), 6) for share in np.stack(drawn["rolled"]).mean(axis=0)],
        "span_lengths": np.bincount(sizes).tolist(),
        "prefixes": np.bincount(prefix, minlength=LENGTH).tolist(),
    }


def converted() -> dict:
    """Two pairs packed into one row by seqio's converters."""
    pairs = [{"inputs": [7, 8, 5, 1], "targets": [3, 9, 1]}, {"inputs": [8, 4, 9, 3, 1], "targets": [4, 1]}]
    types = {"inputs": tf.TensorSpec([None], tf.int32), "targets": tf.TensorSpec([None], tf.int32)}
    data = tf.data.Dataset.from_generator(lambda: pairs, output_signature=types)
    found = {}
    for converter, lengths in (
        (seqio.PrefixLMFeatureConverter(pack=True), {"inputs": 9, "targets": 6}),
        (seqio.EncDecFeatureConverter(pack=True), {"inputs": 10, "targets": 7}),
    ):
        rows = list(converter(data, task_feature_lengths=lengths).as_numpy_iterator())
        row = {name: np.asarray(value, np.float64).astype(int).tolist() for name, value in rows[0].items()}
        found[type(converter).__name__] = {"pairs": pairs, "lengths": lengths, "num_rows": len(rows), "row": row}
    return found


def main() -> None:
    fixed = spans(20, SEEDS, 0.3, 3.0)
    tokens = tf.range(1, 21)
    both = [
        getattr(preprocessors, name)(tokens, tf.constant(fixed == 1), VOCABULARY, seeds=SEEDS).numpy().tolist()
        for name in ("noise_span_to_unique_sentinel", "nonnoise_span_to_unique_sentinel")
    ]
    found = {
        "made_with": f"t5 {importlib.metadata.version('t5')}, seqio-nightly "
        f"{importlib.metadata.version('seqio-nightly')}, tensorflow {tf.__version__}",
        "seeds_1_2_3_4": {"mask": fixed.tolist(), "inputs": both[0], "targets": both[1]},
        "on_masks": on_masks(),
        "counts": [
            [n, d, m, *_counts(spans(n, SEEDS, d, m))] for d, m in ((0.15, 3.0), (0.5, 3.0), (0.15, 8.0)) for n in SIZES
        ],
        "row_lengths": [
            [*row, *map(int, preprocessors.random_spans_helper(row[0], row[1], row[2], 1, 1))] for row in ROWS
        ],
        "how_often": how_often(),
        "converted": converted(),
    }
    GOLDEN.write_text(json.dumps(found) + "\n")


def _counts(mask: np.ndarray) -> tuple[int, int]:
    return int(mask.sum()), int((np.diff(mask, prepend=0) > 0).sum())


if __name__ == "__main__":
    main()
