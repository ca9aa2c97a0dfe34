"""Texts with questions and answers about them as one text for `InstructionLM` (arXiv:2406.14491, section 2.2).

  text       The Rhine is 1,233 km long.     questions  [How long is the Rhine?]     answers  [1,233 km]

  targets    The Rhine is 1,233 km long.  Question: How long is the Rhine?  Answer: | 1,233 km
  responses  0 ...................................................................... 1 ......

A preprocessor of a SeqIO task, in place of `seqio.preprocessors.tokenize`. Each text has one template for all its
pairs, chosen by a hash of the text, so that the same text always looks the same.
"""

from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf

# What stands before a question, between it and its answer, and behind the answer.
TEMPLATES = (
    ("\n\nQuestion: ", "\nAnswer: ", ""),
    ("\n\nQ: ", "\nA: ", ""),
    ("\n\n", "\n", ""),
    ("\n\nHere is a question about the text above: ", "\n\nThe answer is: ", ""),
)


def instruction_text(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    templates: Sequence[tuple[str, str, str]] = TEMPLATES,
) -> tf.data.Dataset:
    """{"text": string, "questions": string [n], "answers": string [n]} to {"targets", "responses"}, int32 [tokens]."""
    vocabulary = output_features["targets"].vocabulary
    before, between, behind = (tf.constant(parts) for parts in zip(*templates, strict=True))

    def one(example):
        choice = tf.strings.to_hash_bucket_fast(example["text"], len(templates))
        asked = before[choice] + example["questions"] + between[choice]
        told = example["answers"] + behind[choice]
        pieces = tf.concat([example["text"][None], tf.reshape(tf.stack([asked, told], axis=1), [-1])], axis=0)
        is_told = tf.concat([[0], tf.tile([0, 1], [tf.shape(asked)[0]])], axis=0)
        tokens = tf.map_fn(
            lambda piece: tf.cast(vocabulary.encode_tf(piece), tf.int32),
            pieces,
            fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0),
        )
        return {"targets": tokens.values, "responses": tf.repeat(tf.cast(is_told, tf.int32), tokens.row_lengths())}

    return dataset.map(one, num_parallel_calls=tf.data.AUTOTUNE)
