"""Near duplicates: MinHash with banding (Broder 1997; arXiv:2107.06499), every match checked by its true Jaccard.

  words      lower case, digits 0, all else a space
  shingles   `ngram` words in a row, 32 bits each (fewer words: all of them are one)
  signature  bands * rows minima, each of the shingles under another permutation of 32 bits: x = a h, x ^= x >> 16, b x,
             a and b odd
  candidates two documents that agree on all rows of a band; P = 1 - (1 - J**rows)**bands
  duplicates candidates whose sets of shingles have a Jaccard similarity of at least `threshold`; their connected
             components are clusters, of which one document stays

14 bands of 8 rows are FineWeb's (arXiv:2406.17557): P is .56 at J = .7, .92 at .8, 1 - 4e-4 at .9. The check takes
away what banding finds too much; what it misses is told by P. Where Chinese, Japanese, Thai, Lao, Khmer or Burmese
is written, which have no spaces, every character is a word.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from t5x_like.corpus import components, survivors
from t5x_like.corpus.documents import column

_NOT_WORDS = re.compile(r"\W+")
_DIGITS = re.compile(r"\d")
# Of the bytes of ASCII: letters stay, digits are 0, all else a space; those of longer characters stay.
_ASCII = bytes(
    byte if byte >= 128 or chr(byte).islower() else ord("0") if chr(byte).isdigit() else 32 for byte in range(256)
)
_B = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
# Characters of scripts without spaces; their vowel and tone marks are no letters to `re` and count as spaces.
UNSPACED = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\U00020000-\U0002ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinHash:
    """keep             the policy of `survivors`
    earlier, index   files of keys: of corpora that must not be repeated, and where to write this one's with theirs
    """

    bands: int = 14
    rows: int = 8
    ngram: int = 5
    threshold: float = 0.7
    keep: str = "longest"
    seed: int = 0
    earlier: Sequence[str] = ()
    index: str = ""

    def __post_init__(self):
        if min(self.bands, self.rows, self.ngram) < 1 or not 0 <= self.threshold <= 1:
            raise ValueError(f"{self}: bands, rows and ngram are at least 1, threshold is between 0 and 1")
        survivors.check_policy(self.keep)
        survivors.check_index(self.earlier, self.index)

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        texts = column(batch, "text")
        sets = [shingles(text, self.ngram) for text in texts]
        signature = np.stack([self.signature(one) for one in sets]) if sets else np.zeros((0, self.bands * self.rows))
        bands = mixed(signature.reshape(len(sets), self.bands, self.rows).astype(np.uint64))
        offsets = np.cumsum([0, *map(len, sets)])
        flat = np.concatenate([np.zeros(0, np.uint32), *sets])
        return pa.table(
            {
                "bands": pa.FixedSizeListArray.from_arrays(pa.array(bands.ravel(), pa.uint64()), self.bands),
                "shingles": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(flat, pa.uint32())),
                **survivors.about(batch),
            }
        )

    def signature(self, hashes: np.ndarray) -> np.ndarray:
        """Of a set of shingles uint32 [n]: uint32 [bands * rows]."""
        first, second = _permutations(self.seed, self.bands * self.rows)
        best = np.full(len(first), 0xFFFFFFFF, np.uint32)
        for begin in range(0, len(hashes), 256):  # small enough for the cache
            part = hashes[None, begin : begin + 256] * first[:, None]
            part ^= part >> np.uint32(16)
            part *= second[:, None]
            np.minimum(best, part.min(axis=1), out=best)
        return best

    def choose(self, keys: pa.Table) -> tuple[np.ndarray, dict[str, int]]:
        keys = survivors.with_earlier(keys, self.earlier)
        columns = survivors.columns_of(keys)
        bands = keys.column("bands").combine_chunks().values.to_numpy().reshape(-1, self.bands)
        sets = keys.column("shingles").combine_chunks()
        offsets, flat = sets.offsets.to_numpy(), sets.values.to_numpy()

        def is_alike(pairs: np.ndarray) -> np.ndarray:
            return components.jaccard(pairs, offsets, flat) >= self.threshold

        group, looked_at, alike = components.clusters(len(bands), components.candidates(bands), is_alike)
        gone = survivors.all_but_one(columns, group, self.keep)
        if self.index:
            survivors.write_index(keys, gone, self.index)
        return survivors.names_of(columns, gone), {"candidate pairs": looked_at, "pairs alike": alike}

    def take_away(self, batch: pa.RecordBatch, names: np.ndarray) -> pa.RecordBatch:
        return survivors.drop_named(batch, names, "near duplicate")


def words_of(text: str) -> bytes:
    """The words that are compared, UTF-8 with one space or more between them."""
    text = text.lower()
    if not text.isascii():
        text = _DIGITS.sub("0", _NOT_WORDS.sub(" ", _UNSPACED.sub(r" \g<0> ", text)))
    return text.encode("utf-8", "surrogatepass").translate(_ASCII)


def shingles(text: str, ngram: int) -> np.ndarray:
    """The set of hashes of `ngram` words in a row, sorted uint32; empty for a text without words."""
    words = word_hashes(words_of(text))
    if not len(words):
        return np.zeros(0, np.uint32)
    count = max(len(words) - ngram + 1, 1)
    value = np.zeros(count, np.uint64)
    for i in range(min(ngram, len(words))):
        value = value * np.uint64(0xD6E8FEB86659FD93) + words[i : i + count]
    hashes = np.sort((finish(value) >> np.uint64(32)).astype(np.uint32))
    return hashes[np.append(True, hashes[1:] != hashes[:-1])]


def word_hashes(text: bytes) -> np.ndarray:
    """uint64 for each word of a text with spaces between its words: sum of (byte + 1) * B**place, mixed."""
    codes = np.frombuffer(text, np.uint8)
    edges = np.flatnonzero(np.diff(codes != 32, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return np.zeros(0, np.uint64)
    power, inverse = _powers(1 << max(len(codes) - 1, 1).bit_length())
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * power[: len(codes)], out=sums[1:])
    return finish((sums[ends] - sums[starts]) * inverse[starts])


def finish(value: np.ndarray) -> np.ndarray:
    """The 64-bit finaliser of MurmurHash3: every bit of the input reaches every bit of the output."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


def mixed(rows: np.ndarray) -> np.ndarray:
    """uint64 [..., rows] -> [...]: one number for the rows of a band."""
    value = np.zeros(rows.shape[:-1], np.uint64)
    for i in range(rows.shape[-1]):
        value = finish(value * np.uint64(31) + rows[..., i] + np.uint64(1))
    return value


@functools.lru_cache(maxsize=32)
def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """B**0 ... B**(length - 1) and their inverses, modulo 2**64."""
    inverse = np.uint64(pow(int(_B), -1, 1 << 64))
    made = []
    for base in (_B, inverse):
        factors = np.full(length, base, np.uint64)
        factors[0] = 1
        made.append(np.cumprod(factors))
    return made[0], made[1]


@functools.lru_cache(maxsize=4)
def _permutations(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(seed))
    first, second = rng.integers(0, 1 << 32, (2, count), np.uint32) | np.uint32(1)
    return first, second
