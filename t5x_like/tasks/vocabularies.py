"""SeqIO vocabularies and ours: one more kind for SeqIO (`tokenizers` JSON), and the description for task.json."""

import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from t5x_like.vocabularies import load
from t5x_like.vocabularies.special_tokens import SpecialTokens


class HuggingFaceVocabulary(seqio.Vocabulary):
    """A tokenizer of the `tokenizers` library (a JSON file) as a SeqIO vocabulary.

    `pad`, `eos` and `unk` name its tokens, e.g. pad=None, eos="<|endoftext|>", unk=None for GPT-2.
    """

    def __init__(
        self,
        file: str,
        *,
        extra_ids: int = 0,
        pad: str | None = "<pad>",
        eos: str = "</s>",
        unk: str | None = "<unk>",
    ):
        super().__init__(extra_ids=extra_ids)
        self.file = pathlib.Path(file)
        self._names = {"pad": pad, "eos": eos, "unk": unk}

    @functools.cached_property
    def spec(self) -> dict:
        return load.describe("huggingface", self.file, extra_ids=self.extra_ids, **self._names)

    @functools.cached_property
    def vocabulary(self) -> load.HuggingFaceVocabulary:
        return load.open_vocabulary(self.spec, self.file.parent)

    @property
    def bos_id(self) -> int | None:
        return None

    @property
    def eos_id(self) -> int:
        return self.vocabulary.special.eos

    @property
    def pad_id(self) -> int:
        return self.vocabulary.special.pad

    @property
    def unk_id(self) -> int | None:
        return self.vocabulary.special.unk

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.size - self.extra_ids

    def _encode(self, s: str) -> list[int]:
        return self.vocabulary.encode(s)

    def _decode(self, ids: list[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text) -> np.ndarray:
            return np.array(self.vocabulary.encode(tf.compat.as_text(np.asarray(text).item())), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32, stateful=False)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(rows):
            return self.vocabulary.decode(np.asarray(rows).tolist()).encode("utf-8")

        if ids.shape.rank == 1:
            return tf.numpy_function(decode, [ids], tf.string, stateful=False)
        return tf.map_fn(self._decode_tf, ids, fn_output_signature=tf.string)

    def __eq__(self, other) -> bool:
        return isinstance(other, HuggingFaceVocabulary) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash((str(self.file), self.extra_ids))

    def __repr__(self) -> str:
        return f"HuggingFaceVocabulary({self.file}, extra_ids={self.extra_ids})"


def vocabulary_spec(vocabulary: seqio.Vocabulary) -> tuple[dict, pathlib.Path | None]:
    """The "vocabulary" entry of task.json, and the file to copy beside it (None for bytes)."""
    if isinstance(vocabulary, HuggingFaceVocabulary):
        return vocabulary.spec, vocabulary.file
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return load.describe("byte", None, extra_ids=vocabulary.extra_ids), None
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        file = pathlib.Path(vocabulary.sentencepiece_model_file)
        spec = load.describe("sentencepiece", file, extra_ids=vocabulary.extra_ids)
        if vocabulary.sp_model != load.with_extra_ids(file.read_bytes(), vocabulary.extra_ids):
            raise ValueError(f"{vocabulary}: normalizer overrides and extra ids in ascending order are not supported")
        return spec, file
    raise ValueError(
        f"vocabulary {type(vocabulary).__name__} cannot be stored: use seqio's SentencePieceVocabulary, ByteVocabulary "
        "or t5x_like.tasks.vocabularies.HuggingFaceVocabulary"
    )


def special_tokens(vocabulary: seqio.Vocabulary) -> SpecialTokens:
    return SpecialTokens.from_json(vocabulary_spec(vocabulary)[0]["special_tokens"])


def the_one_vocabulary(name: str, output_features: Mapping[str, seqio.Feature]) -> seqio.Vocabulary:
    """The vocabulary that all features of a task share."""
    if not output_features:
        raise ValueError(f"task {name} has no output features: declare at least 'targets'")
    (first, feature), *others = output_features.items()
    for other, same in others:
        if same.vocabulary != feature.vocabulary:
            raise ValueError(
                f"task {name}: {first} and {other} have different vocabularies ({feature.vocabulary} and "
                f"{same.vocabulary}); one model reads both, so give them the same"
            )
    return feature.vocabulary


def seqio_vocabulary(file: str | pathlib.Path | None, *, extra_ids: int) -> seqio.Vocabulary:
    """The SeqIO vocabulary for a tokenizer file: .model (SentencePiece), .json (`tokenizers`), or None for bytes."""
    kind = load.describe_file(file, extra_ids=extra_ids)["kind"]
    if kind == "byte":
        return seqio.ByteVocabulary(extra_ids)
    return {"sentencepiece": seqio.SentencePieceVocabulary, "huggingface": HuggingFaceVocabulary}[kind](
        str(file), extra_ids=extra_ids
    )
