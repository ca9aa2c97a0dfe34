"""Lines or paragraphs that stand in many documents: menus, notices, signatures (CCNet, arXiv:1911.00359, section 4.1).

CCNet compares words, every digit 0, and keeps none of those that come twice in a shard; C4's code compares lines in
lower case and keeps one of each (`by='line'`, `keep='first'`: here the first, there that of the address with the lowest
hash); ROOTS' catalogue takes templates of 15 characters or more away that come ten times (`most=9`, `characters=15`).
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash

from t5x_like.corpus import survivors
from t5x_like.corpus.documents import column, drop, with_column

_UNITS = {"line": "\n", "paragraph": "\n\n"}
_DIGIT, _NOT_WORDS = re.compile(r"\d"), re.compile(r"[^\w\s]|_")
_PLACE = np.dtype([*survivors.NAME.descr, ("part", np.int32)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepeatedLines:
    """Takes away what comes more than `most` times in all documents together; a document that loses all is dropped.

    by          'words': in lower case, digits 0, without punctuation; 'line': in lower case, without spaces at the ends
    unit        'line' or 'paragraph' (between empty lines)
    keep        'none': every copy goes, 'first': all but the first one in the order of documents
    characters  shorter ones, as they are compared, are left alone
    """

    by: str = "words"
    unit: str = "line"
    most: int = 1
    keep: str = "none"
    characters: int = 1

    def __post_init__(self):
        if self.by not in _COMPARED:
            raise ValueError(f"by {self.by!r}: choose one of {', '.join(_COMPARED)}")
        if self.unit not in _UNITS:
            raise ValueError(f"unit {self.unit!r}: choose one of {', '.join(_UNITS)}")
        if self.keep not in ("none", "first"):
            raise ValueError(f"keep {self.keep!r}: choose none or first")
        if self.most < 1 or self.characters < 1:
            raise ValueError(f"most {self.most} and characters {self.characters} must be at least 1")

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        found: list[tuple[int, int, int, int]] = []
        for file, row, text in zip(*(column(batch, name) for name in ("file", "row", "text")), strict=True):
            found += [(file, row, part, value) for part, value in self.hashes(text)]
        files, rows, parts, hashes = zip(*found, strict=True) if found else ((), (), (), ())
        columns = {"file": (files, pa.int32()), "row": (rows, pa.int64()), "part": (parts, pa.int32())}
        columns["hash"] = (hashes, pa.uint64())
        return pa.table({name: pa.array(values, dtype) for name, (values, dtype) in columns.items()})

    def hashes(self, text: str) -> Iterator[tuple[int, int]]:
        """(number of the part, 64 bits) of those that are long enough."""
        for number, part in enumerate(text.split(_UNITS[self.unit])):
            value = _COMPARED[self.by](part)
            if len(value) >= self.characters:
                yield number, xxhash.xxh3_64_intdigest(value.encode("utf-8", "surrogatepass"))

    def choose(self, keys: pa.Table) -> survivors.Choice:
        _, first, inverse, counts = np.unique(
            keys.column("hash").to_numpy(), return_index=True, return_inverse=True, return_counts=True
        )
        goes = counts[inverse] > self.most
        if self.keep == "first":
            goes[first] = False
        chosen = np.empty(int(goes.sum()), _PLACE)
        for name in _PLACE.names:
            chosen[name] = keys.column(name).to_numpy()[goes]
        return survivors.Choice(chosen, {f"{self.unit}s": len(goes), f"{self.unit}s taken away": len(chosen)})

    def take_away(self, batch: pa.RecordBatch, chosen: np.ndarray) -> pa.RecordBatch:
        gone: dict[int, set[int]] = {}
        for row, part in zip(chosen["row"].tolist(), chosen["part"].tolist(), strict=True):
            gone.setdefault(row, set()).add(part)
        if not gone:
            return batch
        texts, reasons = [], []
        for row, text in zip(column(batch, "row"), column(batch, "text"), strict=True):
            kept = text
            if row in gone:
                parts = text.split(_UNITS[self.unit])
                kept = _UNITS[self.unit].join(part for i, part in enumerate(parts) if i not in gone[row])
            is_empty = row in gone and not kept.strip()
            texts.append(text if is_empty else kept)  # what is dropped is shown as it was
            reasons.append(f"repeated {self.unit}s alone" if is_empty else None)
        return drop(with_column(batch, "text", texts), reasons)


def ccnet_words(part: str) -> str:
    """CCNet's normalisation; empty for a line without letters."""
    return " ".join(_NOT_WORDS.sub("", _DIGIT.sub("0", part.lower())).split())


_COMPARED = {"words": ccnet_words, "line": lambda part: part.strip().lower()}
