"""An objective of ours as a SeqIO preprocessor: the same NumPy function that the Grain pipeline runs.

Documents are taken 128 at a time, as SeqIO's own `reduce_concat_tokens` does, so an objective that joins documents
joins those. The random draws come from SeqIO's seed, a fresh one for each block and epoch.

A method that predicts in place gives what is read as "inputs" and, of the same length, "targets", "loss_weights" and
what further it makes of each token; its task needs no more than "targets" among its output features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from t5x_like.data.examples import Context, Examples, Side, no_examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.tasks import vocabularies
from t5x_like.vocabularies import load

DOCUMENTS_PER_BLOCK = 128


def as_preprocessor(
    objective: Any,
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int] | None,
    output_features: Mapping[str, seqio.Feature],
) -> tf.data.Dataset:
    """Tokenized documents to {"inputs", "targets"} (or {"targets"} alone), int32 and EOS included."""
    name = type(objective).__name__
    if sequence_length is None:
        raise ValueError(f"{name} cuts text to rows: give sequence_length, e.g. {{'inputs': 512, 'targets': 114}}")
    vocabulary = vocabularies.the_one_vocabulary(name, output_features)
    spec, file = vocabularies.vocabulary_spec(vocabulary)
    opened = load.open_vocabulary(spec, file.parent if file else None)
    context = Context(dict(sequence_length), opened.special, opened.size, opened)
    objective.check(context)
    fields = [key for key in objective.reads if key in dataset.element_spec]
    if missing := sorted(set(objective.reads) - set(fields)):
        raise ValueError(f"{name} reads {missing}, which the steps before it do not make: they make {fields}")
    nothing = columns(no_examples(objective, context))
    outputs = [key for key in nothing if nothing[key] is not None]
    wanted = [key for key in ("inputs", "targets") if key in output_features and key in sequence_length]
    if wanted != (["targets"] if "loss_weights" in nothing else outputs):
        raise ValueError(f"{name} makes {outputs}, but output_features has {wanted}")

    def corrupt(seed: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
        rng = np.random.default_rng(np.asarray(seed, np.uint32))
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        documents = {key: Ragged(values, lengths) for key, (values, lengths) in zip(fields, pairs, strict=True)}
        num_documents = len(documents[fields[0]].lengths)
        made = columns(objective.examples(rng, Documents(documents, np.ones(num_documents, bool)), context))
        return [array for key in outputs for array in made[key]]

    types = [t for key in outputs for t in (tf.as_dtype(nothing[key].values.dtype), tf.int64)]

    @seqio.map_over_dataset(num_seeds=1)
    def block_examples(block, seed):
        arrays = [array for key in fields for array in (block[key].values, block[key].row_lengths())]
        made = tf.numpy_function(corrupt, [seed, *arrays], types, stateful=False)
        for array in made:
            array.set_shape([None])
        return {key: tf.RaggedTensor.from_row_lengths(*made[2 * i : 2 * i + 2]) for i, key in enumerate(outputs)}

    dataset = dataset.map(lambda document: {key: tf.cast(document[key], tf.int32) for key in fields})
    dataset = block_examples(dataset.ragged_batch(DOCUMENTS_PER_BLOCK)).unbatch()
    return dataset.map(lambda example: {key: tf.ensure_shape(example[key], [None]) for key in outputs})


def columns(made: Examples | Side) -> dict[str, Ragged | None]:
    """Examples by the names that a SeqIO user knows; ids are int32."""
    if isinstance(made, Examples):
        named = {"inputs": made.inputs, "targets": made.targets}
        return {key: side and Ragged(side.values.astype(np.int32), side.lengths) for key, side in named.items()}
    arrays = {"inputs": made.tokens, "targets": made.targets, "loss_weights": made.loss_weights} | dict(made.aux)
    return {key: Ragged(array, made.lengths) for key, array in arrays.items()}
