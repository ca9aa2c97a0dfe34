"""Worker of data_pipeline.py: the same workload through SeqIO, with T5's preprocessing as TensorFlow operations.

python benchmarks/pipeline_seqio.py FOLDER WORKLOAD packed|unpacked NUM_BATCHES LAUNCHED

The documents are in memory, already tokenised, and SeqIO keeps them in its cache. The preprocessors follow what T5's do
(arXiv:1910.10683, section 3.1.4, and the released code): chunk, join 128 documents, split, mask, replace by sentinels.
"""

import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import seqio
import tensorflow as tf

from benchmarks import workloads

IMPORTED = time.time()
JOINED_DOCUMENTS = 128
NOISE_DENSITY, MEAN_SPAN = 0.15, 3.0
TOKENS_PER_EXAMPLE = 568  # become 512 inputs and 114 targets, EOS included
VOCABULARY = seqio.ByteVocabulary(extra_ids=workloads.EXTRA_IDS)


@seqio.map_over_dataset(num_seeds=1)
def random_chunk(example, seed):
    """One of the aligned pieces of MAX_DOCUMENT tokens of a document."""
    tokens = example["targets"]
    num_pieces = -(-tf.size(tokens) // workloads.MAX_DOCUMENT)
    piece = tf.random.stateless_uniform([], seed, maxval=num_pieces, dtype=tf.int32)
    return {"targets": tokens[piece * workloads.MAX_DOCUMENT : (piece + 1) * workloads.MAX_DOCUMENT]}


def join_documents(dataset):
    """128 documents as one text without separators; like T5's, it tells padding by id 0."""

    def without_padding(batch):
        flat = tf.reshape(batch["targets"], [-1])
        return {"targets": tf.boolean_mask(flat, flat > 0)}

    joined = dataset.padded_batch(JOINED_DOCUMENTS, padded_shapes={"targets": [None]})
    return joined.map(without_padding, num_parallel_calls=tf.data.AUTOTUNE)


def split_every(length: int):
    """Cuts every text into pieces of `length` tokens; the last one is shorter."""

    def pieces(example):
        tokens = example["targets"]
        num_pieces = -(-tf.size(tokens) // length)
        padded = tf.pad(tokens, [[0, num_pieces * length - tf.size(tokens)]])
        lengths = tf.minimum(length, tf.size(tokens) - length * tf.range(num_pieces))
        return tf.reshape(padded, [-1, length]), lengths

    def preprocessor(dataset):
        dataset = dataset.map(pieces, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
        return dataset.map(lambda row, size: {"targets": row[:size]}, num_parallel_calls=tf.data.AUTOTUNE)

    return preprocessor


@seqio.map_over_dataset(num_seeds=1)
def corrupt_spans(example, seed):
    """Noise spans become sentinels in the inputs, and what lies between them becomes sentinels in the targets."""
    tokens = example["targets"]
    noise = noise_mask(tf.size(tokens), seed)
    return {"inputs": to_sentinels(tokens, noise), "targets": to_sentinels(tokens, ~noise)}


def noise_mask(length, seed):
    """Noise and kept tokens in equally many random non-empty spans, a kept one first; bool [length]."""
    size = tf.maximum(length, 2)
    num_noise = tf.cast(tf.round(tf.cast(size, tf.float32) * NOISE_DENSITY), tf.int32)
    num_noise = tf.clip_by_value(num_noise, 1, size - 1)
    num_spans = tf.maximum(tf.cast(tf.round(tf.cast(num_noise, tf.float32) / MEAN_SPAN), tf.int32), 1)
    noise_seed, kept_seed = tf.unstack(tf.random.split(seed, 2))
    noise = random_composition(num_noise, num_spans, noise_seed)
    kept = random_composition(size - num_noise, num_spans, kept_seed)
    borders = tf.cumsum(tf.reshape(tf.stack([kept, noise], axis=1), [-1]))[:-1]
    changes = tf.math.unsorted_segment_sum(tf.ones_like(borders), borders, size)
    return (tf.cumsum(changes) % 2 == 1)[:length]


def random_composition(total, parts, seed):
    """`total` as a sum of `parts` positive numbers, all ways equally likely."""
    ends = tf.random.experimental.stateless_shuffle(tf.cast(tf.range(total - 1) < parts - 1, tf.int32), seed)
    part = tf.cumsum(tf.pad(ends, [[1, 0]]))
    return tf.math.unsorted_segment_sum(tf.ones_like(part), part, parts)


def to_sentinels(tokens, mask):
    """The k-th run of the mask becomes the one token vocabulary_size - 1 - k."""
    first = mask & ~tf.pad(mask[:-1], [[1, 0]])
    sentinels = VOCABULARY.vocab_size - tf.cumsum(tf.cast(first, tokens.dtype))
    return tf.boolean_mask(tf.where(first, sentinels, tokens), first | ~mask)


def text_ended(dataset):
    """EOS after each document, before it is split: next-token prediction."""
    ended = dataset.map(lambda x: {"targets": tf.concat([x["targets"], [1]], 0)}, num_parallel_calls=tf.data.AUTOTUNE)
    return split_every(workloads.LENGTHS["single"]["targets"])(ended)


PREPROCESSORS = {
    "spans": [
        random_chunk,
        join_documents,
        split_every(TOKENS_PER_EXAMPLE),
        corrupt_spans,
        seqio.preprocessors.append_eos_after_trim,
    ],
    "single": [text_ended],
    "pairs": [seqio.preprocessors.append_eos_after_trim],
}


def register(folder: pathlib.Path, workload: str) -> int:
    """Registers the workload as a SeqIO task and returns the number of its documents."""
    saved = np.load(folder / workload / "documents.npz")
    sides = sorted({name.rsplit("_", 1)[0] for name in saved})
    ragged = {s: tf.RaggedTensor.from_row_lengths(saved[f"{s}_values"], saved[f"{s}_lengths"]) for s in sides}

    def read(split, shuffle_files, seed=None):
        dataset = tf.data.Dataset.from_tensor_slices(ragged)
        return dataset.map(lambda row: {s: tf.ensure_shape(tf.cast(row[s], tf.int32), [None]) for s in sides})

    count = len(saved[f"{sides[0]}_lengths"])
    seqio.TaskRegistry.add(
        workload,
        source=seqio.FunctionDataSource(read, splits=["train"], num_input_examples={"train": count}),
        preprocessors=PREPROCESSORS[workload],
        output_features={side: seqio.Feature(VOCABULARY) for side in workloads.LENGTHS[workload]},
    )
    return count


def real_places(batch) -> dict[str, np.ndarray]:
    """Segment ids where rows are packed, else the tokens: id 0 is padding here."""
    if "decoder_segment_ids" in batch:
        names = {"inputs": "encoder_segment_ids", "targets": "decoder_segment_ids"}
    else:
        names = {"inputs": "encoder_input_tokens", "targets": "decoder_target_tokens"}
    return {side: batch[name] for side, name in names.items() if name in batch}


def saved_position_bytes(iterator) -> int:
    """Size on disk of a tf.train.Checkpoint of the iterator: what T5X saves to resume in the middle of the data."""
    with tempfile.TemporaryDirectory() as folder:
        tf.train.Checkpoint(iterator=iterator).write(f"{folder}/position")
        return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


def main(folder: str, workload: str, packed: str, num_batches: str, launched: str) -> None:
    register(pathlib.Path(folder), workload)
    lengths = workloads.LENGTHS[workload]
    converter = seqio.EncDecFeatureConverter if "inputs" in lengths else seqio.LMFeatureConverter
    dataset = seqio.get_dataset(
        workload,
        task_feature_lengths=lengths,
        feature_converter=converter(pack=packed == "packed"),
        dataset_split="train",
        shuffle=True,
        num_epochs=None,
        seed=0,
        batch_size=workloads.BATCH_SIZE,
    )
    iterator = iter(dataset)
    batches = ({name: value.numpy() for name, value in batch.items()} for batch in iterator)
    measured = workloads.time_batches(
        batches, real_places, launched=float(launched), imported=IMPORTED, warm_up=5, num_batches=int(num_batches)
    )
    workloads.report({**measured, "state_bytes": saved_position_bytes(iterator)})


if __name__ == "__main__":
    main(*sys.argv[1:])
