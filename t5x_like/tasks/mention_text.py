"""Texts with marked names as one text with the features that entity objectives read (LUKE, ERICA, ERNIE, blanks).

  pieces     ["", "J. K. Rowling", " wrote ", "Harry Potter", "."]
  mentions   [0,  1,               0,         2,              0]      the number of the entity, from 1; 0 is none
  relations  [0,  0,               0,         1 + 7 * 65536 + 1, 0]   or absent; at a tail 1 + relation * 65536 + head

  targets    J . K . Rowling wrote Harry Potter .
  entities   2 3 3 3 3       0     4     5      0                     as in `data/mentions.py`

A preprocessor of a SeqIO task, in place of `seqio.preprocessors.tokenize`. Pieces are tokenized one by one, so that no
token is half a name; the space before a name belongs to the piece before it.
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf


def mention_text(dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]) -> tf.data.Dataset:
    """{"pieces": string [n], "mentions": int [n], "relations": int [n]} to int32 [tokens] of those names that exist."""
    vocabulary = output_features["targets"].vocabulary

    def one(example):
        tokens = tf.map_fn(
            lambda piece: tf.cast(vocabulary.encode_tf(piece), tf.int32),
            example["pieces"],
            fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0),
        )
        counts = tokens.row_lengths()
        within = tf.ragged.range(counts).values
        number = tf.repeat(tf.cast(example["mentions"], tf.int32), counts)
        goes_on = tf.cast(within > 0, tf.int32)
        made = {"targets": tokens.values, "entities": tf.where(number > 0, 2 * number + goes_on, 0)}
        if "relations" in example:
            made["relations"] = tf.repeat(tf.cast(example["relations"], tf.int32), counts) * (1 - goes_on)
        return made

    return dataset.map(one, num_parallel_calls=tf.data.AUTOTUNE)
