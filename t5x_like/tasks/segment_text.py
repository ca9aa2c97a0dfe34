"""Texts with the words that a segmenter finds, for whole words in Chinese (MaskedLM's units = 'segments').

  text      我们在北京大学读书
  words     我们 在 北京大学 读书
  targets   我 们 在 北 京 大 学 读 书
  segments  1  0  1  1  0  0  0  1  0

A preprocessor of a SeqIO task, in place of `seqio.preprocessors.tokenize`. A token belongs to the word in which its
first character stands; spaces and marks are words of their own, or begin the word behind them in the same token.
"""

import bisect
import functools
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import seqio
import tensorflow as tf

from t5x_like.tasks import vocabularies


def segment_text(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    cut: Callable[[str], list[str]] | None = None,
) -> tf.data.Dataset:
    """{"targets": string} to {"targets", "segments"}, int32 [tokens]. `cut` splits a text into words; None: rjieba."""
    vocabulary = output_features["targets"].vocabulary
    cut = cut or chinese_words

    def one(row):
        def both(text) -> tuple[np.ndarray, np.ndarray]:
            return segmented(vocabulary, tf.compat.as_text(np.asarray(text).item()), cut)

        targets, segments = tf.numpy_function(both, [row["targets"]], (tf.int32, tf.int32), stateful=False)
        targets.set_shape([None])
        segments.set_shape([None])
        return {**row, "targets": targets, "segments": segments}

    return dataset.map(one, num_parallel_calls=tf.data.AUTOTUNE)


def chinese_words(text: str) -> list[str]:
    """By rjieba, which the `corpus` extra brings."""
    import rjieba  # only here: other cutters need none of it

    return rjieba.cut(text)


def segmented(
    vocabulary: seqio.Vocabulary, text: str, cut: Callable[[str], list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, 1 where a word begins), int32 [tokens] each."""
    words = cut(text)
    if "".join(words) != text:
        raise ValueError(f"the segmenter changed the text {text[:30]!r}: it may only cut it")
    starts = list(itertools.accumulate(map(len, words), initial=0))[:-1]
    ids, begins = encode_with_places(vocabulary, text)
    word = np.array([bisect.bisect_right(starts, begin) for begin in begins], np.int64)
    return np.array(ids, np.int32), (np.diff(word, prepend=0) != 0).astype(np.int32)


@functools.singledispatch
def encode_with_places(vocabulary: seqio.Vocabulary, text: str) -> tuple[list[int], list[int]]:
    """(ids, the place of each one's first character that is no space); raises for a vocabulary that tells none."""
    raise ValueError(f"{type(vocabulary).__name__} does not tell where its tokens stand in a text")


@encode_with_places.register
def _(vocabulary: seqio.SentencePieceVocabulary, text: str) -> tuple[list[int], list[int]]:
    pieces = vocabulary.tokenizer.encode(text, return_type="proto").pieces
    characters = [0, *itertools.accumulate(len(character.encode("utf-8")) for character in text)]  # in bytes

    def place(byte: int) -> int:
        return bisect.bisect_right(characters, byte) - 1

    places = [behind_spaces(text, place(piece.begin), place(piece.end)) for piece in pieces]
    return [piece.id for piece in pieces], places


@encode_with_places.register
def _(vocabulary: vocabularies.HuggingFaceVocabulary, text: str) -> tuple[list[int], list[int]]:
    ids, places = vocabulary.vocabulary.encode_with_places(text)
    return ids, [behind_spaces(text, begin, end) for begin, end in places]


@encode_with_places.register
def _(vocabulary: seqio.ByteVocabulary, text: str) -> tuple[list[int], list[int]]:
    places = [place for place, character in enumerate(text) for _ in character.encode("utf-8")]
    return vocabulary.encode(text), places


def behind_spaces(text: str, begin: int, end: int) -> int:
    """A piece "▁word" belongs to the word, not to the space before it."""
    while begin < end - 1 and text[begin].isspace():
        begin += 1
    return begin
