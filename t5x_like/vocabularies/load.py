"""Vocabularies at run time: text to ids and back, from the "vocabulary" entry of task.json. No TensorFlow.

Every kind has `size`, `special`, `encode(text)`, `decode(ids)` (up to the first eos, as in SeqIO), `encode_inside` and
`decode_inside` for what stands inside a text, where no space is added or taken away in front, `pieces(ids)` (one string
to display per id) and `begins_word` (bool [size]). Extra ids follow the ids of the file; sentinel k is
`size - 1 - k`, as in SeqIO.

  kind          file                         layout
  sentencepiece NAME.model                   pieces of the model, then extra ids
  byte          none                         pad eos unk, 256 bytes, then extra ids (ByT5, arXiv:2105.13626)
  huggingface   NAME.json (`tokenizers`)     ids of the tokenizer, then extra ids
"""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable

import numpy as np
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from t5x_like.vocabularies import word_starts
from t5x_like.vocabularies.special_tokens import SpecialTokens, from_control_pieces

_NUM_BYTE_SPECIALS = 3
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class SentencePieceVocabulary:
    def __init__(self, model: bytes, *, extra_ids: int, special: SpecialTokens):
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=with_extra_ids(model, extra_ids))
        self.size, self.special = self._processor.get_piece_size(), special

    @functools.cached_property
    def begins_word(self) -> np.ndarray:
        return word_starts.of_sentencepiece(self._processor)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode(_until_eos(ids, self.special.eos, self.size))

    @functools.cached_property
    def _inside(self) -> sentencepiece.SentencePieceProcessor:
        proto = sentencepiece_model_pb2.ModelProto.FromString(self._processor.serialized_model_proto())
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())

    def encode_inside(self, text: str) -> list[int]:
        return self._inside.encode(text)

    def decode_inside(self, ids: Iterable[int]) -> str:
        return self._inside.decode(_until_eos(ids, self.special.eos, self.size))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._piece(int(token)) for token in ids]

    def _piece(self, token: int) -> str:
        if not 0 <= token < self.size:
            return f"<id {token}>"
        piece = self._processor.id_to_piece(token)
        byte = _BYTE_PIECE.fullmatch(piece) if self._processor.is_byte(token) else None
        if byte:
            return bytes.fromhex(byte[1]).decode("ascii", errors="backslashreplace")
        return piece.removeprefix("▁") if token in self.special.sentinels else piece.replace("▁", " ")


class ByteVocabulary:
    def __init__(self, *, extra_ids: int, special: SpecialTokens):
        self.size, self.special = _NUM_BYTE_SPECIALS + 256 + extra_ids, special

    @functools.cached_property
    def begins_word(self) -> np.ndarray:
        return word_starts.of_bytes(self.size, _NUM_BYTE_SPECIALS)

    def encode(self, text: str) -> list[int]:
        return [byte + _NUM_BYTE_SPECIALS for byte in text.encode("utf-8")]

    def decode(self, ids: Iterable[int]) -> str:
        ids = _until_eos(ids, self.special.eos, self.size)
        values = (token - _NUM_BYTE_SPECIALS for token in ids)
        return bytes(value for value in values if 0 <= value < 256).decode("utf-8", errors="ignore")

    def encode_inside(self, text: str) -> list[int]:
        return self.encode(text)

    def decode_inside(self, ids: Iterable[int]) -> str:
        return self.decode(ids)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        names = {token: f"<{role}>" for role, token in self.special.roles()}
        names |= {token: f"<extra_id_{k}>" for k, token in enumerate(self.special.sentinels)}
        return [names.get(int(i)) or _byte_piece(int(i)) for i in ids]


class HuggingFaceVocabulary:
    def __init__(self, definition: str, *, extra_ids: int, special: SpecialTokens):
        self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        self._tokenizer.encode_special_tokens = True  # "</s>" in a document is text, not the end of it
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._num_own = _num_ids(self._tokenizer)
        self.size, self.special = self._num_own + extra_ids, special

    @functools.cached_property
    def begins_word(self) -> np.ndarray:
        return word_starts.of_tokenizers(self._tokenizer.to_str(), self._tokenizer.get_vocab(), self.size)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def _inside(self) -> "HuggingFaceVocabulary":
        definition = without_prefix_space(json.loads(self._tokenizer.to_str()))
        return HuggingFaceVocabulary(json.dumps(definition), extra_ids=self.size - self._num_own, special=self.special)

    def encode_inside(self, text: str) -> list[int]:
        return self._inside.encode(text)

    def decode_inside(self, ids: Iterable[int]) -> str:
        return self._inside.decode(ids)

    def encode_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, where each stands in the text: its first character and the one behind its last)."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        ids, text, begin = _until_eos(ids, self.special.eos, self.size), [], 0
        for place, token in enumerate([*ids, self._num_own]):  # sentinels are not in the file: decode what is between
            if token >= self._num_own:
                text.append(self._tokenizer.decode(ids[begin:place], skip_special_tokens=True))
                text += self.pieces(ids[place : place + 1])
                begin = place + 1
        return "".join(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        names = {token: f"<extra_id_{k}>" for k, token in enumerate(self.special.sentinels)}
        return [names.get(int(i)) or self._piece(int(i)) for i in ids]

    def _piece(self, token: int) -> str:
        if not 0 <= token < self._num_own or self._tokenizer.id_to_token(token) is None:
            return f"<id {token}>"
        return self._tokenizer.decode([token], skip_special_tokens=False)


Vocabulary = SentencePieceVocabulary | ByteVocabulary | HuggingFaceVocabulary


def open_vocabulary(spec: dict, folder: pathlib.Path) -> Vocabulary:
    """The vocabulary described by `spec`, whose file lies in `folder` and must have the recorded SHA-256."""
    special = SpecialTokens.from_json(spec["special_tokens"]).check(spec["size"])
    if spec["kind"] == "byte":
        vocabulary = ByteVocabulary(extra_ids=spec["extra_ids"], special=special)
    else:
        path = pathlib.Path(folder) / _plain_file_name(spec["file"])
        data = _read(path)
        if hashlib.sha256(data).hexdigest() != spec["sha256"]:
            raise ValueError(f"tokenizer {path} is not the one the data was made with (SHA-256 differs): prepare again")
        vocabulary = _from_bytes(spec["kind"], data, path, spec["extra_ids"], special)
    if vocabulary.size != spec["size"]:
        raise ValueError(f"vocabulary has {vocabulary.size} ids where its description says {spec['size']}")
    return vocabulary


def describe(
    kind: str,
    path: pathlib.Path | None,
    *,
    extra_ids: int,
    pad: str | None = "<pad>",
    eos: str = "</s>",
    unk: str | None = "<unk>",
) -> dict:
    """The spec that `open_vocabulary` reads, made from a tokenizer file.

    `pad`, `eos` and `unk` name tokens of a "huggingface" file, which does not say what its tokens are for; pad=None
    pads with id 0, whatever that is, since padding is told by loss weights and segments.
    """
    spec = {"kind": kind, "file": path and path.name, "sha256": None, "extra_ids": extra_ids}
    if kind == "byte":
        size, special = _NUM_BYTE_SPECIALS + 256 + extra_ids, SpecialTokens(pad=0, eos=1, unk=2)
    else:
        data = _read(path)
        spec["sha256"] = hashlib.sha256(data).hexdigest()
        if kind == "sentencepiece":
            size, special = _describe_sentencepiece(data, path, extra_ids)
        elif kind == "huggingface":
            size, special = _describe_huggingface(data, path, extra_ids, names={"pad": pad, "eos": eos, "unk": unk})
        else:
            raise ValueError(f"vocabulary kind {kind!r}: one of 'sentencepiece', 'byte', 'huggingface'")
    if extra_ids:
        special = SpecialTokens(**vars(special) | {"sentinels": tuple(range(size - 1, size - 1 - extra_ids, -1))})
    return spec | {"size": size, "special_tokens": special.check(size).to_json()}


def describe_file(path: str | pathlib.Path | None, *, extra_ids: int) -> dict:
    """`describe` with the kind told by the file: .model is SentencePiece, .json is `tokenizers`, None is bytes."""
    if path is None:
        return describe("byte", None, extra_ids=extra_ids)
    path = pathlib.Path(path)
    kind = {".model": "sentencepiece", ".json": "huggingface"}.get(path.suffix)
    if kind is None:
        raise ValueError(f"tokenizer {path}: a SentencePiece file ends in .model, a `tokenizers` file in .json")
    return describe(kind, path, extra_ids=extra_ids)


def without_prefix_space(definition):
    """A tokenizer's definition (JSON) whose parts put no space before a text and take none away."""
    if isinstance(definition, list):
        return [without_prefix_space(part) for part in definition]
    if not isinstance(definition, dict):
        return definition
    off = {"add_prefix_space": False, "prepend_scheme": "never"}
    return {key: off.get(key, without_prefix_space(value)) for key, value in definition.items()}


def with_extra_ids(model: bytes, extra_ids: int) -> bytes:
    """The SentencePiece model with SeqIO's extra ids at its end, so that the last id is `<extra_id_0>`."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    user_defined = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
    for k in reversed(range(extra_ids)):
        proto.pieces.add(piece=f"▁<extra_id_{k}>", score=0.0, type=user_defined)
    return proto.SerializeToString()


def _from_bytes(kind: str, data: bytes, path: pathlib.Path, extra_ids: int, special: SpecialTokens) -> Vocabulary:
    if kind == "sentencepiece":
        return SentencePieceVocabulary(data, extra_ids=extra_ids, special=special)
    if kind == "huggingface":
        return HuggingFaceVocabulary(data.decode("utf-8"), extra_ids=extra_ids, special=special)
    raise ValueError(f"vocabulary kind {kind!r} of {path}: one of 'sentencepiece', 'byte', 'huggingface'")


def _describe_sentencepiece(data: bytes, path: pathlib.Path, extra_ids: int) -> tuple[int, SpecialTokens]:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a SentencePiece model") from error
    if processor.eos_id() < 0:
        raise ValueError(f"{path} has no end-of-sequence piece: train it with eos_id=1")
    pad, unk = max(processor.pad_id(), 0), processor.unk_id()
    base = SpecialTokens(pad=pad, eos=processor.eos_id(), unk=unk if unk != pad else None)
    controls = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    return processor.get_piece_size() + extra_ids, from_control_pieces(controls, base=base)


def _describe_huggingface(
    data: bytes, path: pathlib.Path, extra_ids: int, *, names: dict[str, str | None]
) -> tuple[int, SpecialTokens]:
    try:
        tokenizer = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
        json.loads(data)
    except Exception as error:  # `tokenizers` raises bare Exception
        raise ValueError(f"{path} is not a `tokenizers` JSON file") from error
    roles = {role: tokenizer.token_to_id(name) for role, name in names.items() if name is not None}
    if missing := [f"{role}={names[role]!r}" for role, token in roles.items() if token is None]:
        known = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
        raise ValueError(f"{path} has no token for {', '.join(missing)}: name one of {known}, or None for pad and unk")
    base = SpecialTokens(pad=roles.get("pad", 0), eos=roles["eos"], unk=roles.get("unk"))
    return _num_ids(tokenizer) + extra_ids, from_control_pieces(tokenizer.get_vocab(), base=base)


def _num_ids(tokenizer: tokenizers.Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1  # ids may have holes: not the number of tokens


def _until_eos(ids: Iterable[int], eos: int, size: int) -> list[int]:
    """The ids before the first eos, without those outside the vocabulary (a model's padded rows)."""
    ids = [int(token) for token in ids if 0 <= int(token) < size]
    return ids[: ids.index(eos)] if eos in ids else ids


def _byte_piece(token: int) -> str:
    byte = token - _NUM_BYTE_SPECIALS
    return bytes([byte]).decode("ascii", errors="backslashreplace") if 0 <= byte < 256 else f"<id {token}>"


def _plain_file_name(name: str) -> str:
    if pathlib.PurePath(name).name != name or name in {"", ".", ".."}:
        raise ValueError(f"tokenizer file {name!r} in task.json must be a plain file name beside it")
    return name


def _read(path: pathlib.Path) -> bytes:
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        beside = f"; beside it there is {', '.join(near[:5])}" if near else ""
        raise FileNotFoundError(f"no tokenizer file {path}{beside}")
    return path.read_bytes()
