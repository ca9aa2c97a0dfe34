"""An objective of ours as a SeqIO preprocessor: the same NumPy function that the Grain pipeline runs.

Documents are taken 128 at a time, as SeqIO's own `reduce_concat_tokens` does, so an objective that joins documents
joins those. The random draws come from SeqIO's seed, a fresh one for each block and epoch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.tasks import vocabularies

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
    special = vocabularies.special_tokens(vocabulary)
    context = Context(dict(sequence_length), special, vocabularies.vocabulary_spec(vocabulary)[0]["size"])
    objective.check(context)
    fields = [key for key in features_read(objective) if key in dataset.element_spec]
    if missing := sorted(set(features_read(objective)) - set(fields)):
        raise ValueError(f"{name} reads {missing}, which the steps before it do not make: they make {fields}")
    outputs = [key for key in ("inputs", "targets") if key in output_features and key in sequence_length]

    def corrupt(seed: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
        rng = np.random.default_rng(np.asarray(seed, np.uint32))
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        documents = {key: Ragged(values, lengths) for key, (values, lengths) in zip(fields, pairs, strict=True)}
        num_documents = len(documents[fields[0]].lengths)
        examples = objective.examples(rng, Documents(documents, np.ones(num_documents, bool)), context)
        made = {"inputs": examples.inputs, "targets": examples.targets}
        if [key for key in made if made[key] is not None] != outputs:
            raise ValueError(
                f"{name} makes {[k for k in made if made[k] is not None]}, but output_features has {outputs}"
            )
        return [array for key in outputs for array in (made[key].values.astype(np.int32), made[key].lengths)]

    @seqio.map_over_dataset(num_seeds=1)
    def block_examples(block, seed):
        arrays = [array for key in fields for array in (block[key].values, block[key].row_lengths())]
        made = tf.numpy_function(corrupt, [seed, *arrays], [tf.int32, tf.int64] * len(outputs), stateful=False)
        for array in made:
            array.set_shape([None])
        return {key: tf.RaggedTensor.from_row_lengths(*made[2 * i : 2 * i + 2]) for i, key in enumerate(outputs)}

    dataset = dataset.map(lambda document: {key: tf.cast(document[key], tf.int32) for key in fields})
    dataset = block_examples(dataset.ragged_batch(DOCUMENTS_PER_BLOCK)).unbatch()
    return dataset.map(lambda example: {key: tf.ensure_shape(example[key], [None]) for key in outputs})


def features_read(objective: Any) -> tuple[str, ...]:
    """The features of a document that an objective needs: text alone, or what is given and what is asked for."""
    return ("inputs", "targets") if type(objective).__name__ == "Supervised" else ("targets",)
