"""Near duplicates: MinHash with banding (Broder 1997; arXiv:2107.06499), every match checked by its true Jaccard.

  words      lower case, digits 0, all else a space
  shingles   `ngram` words in a row, 32 bits each (fewer words: all of them are one)
  signature  `rows` permutations of 32 bits (x = a h, x ^= x >> 16, b x; a and b odd), the range of each cut into
             `bands` parts; a band is the least value in its part of each (one permutation hashing, Li et al., NIPS
             2012). Where no value falls into a part, the least value under a permutation of that place alone
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
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import xxhash

from t5x_like.corpus import components, duplicate_clusters, survivors
from t5x_like.corpus.documents import column
from t5x_like.corpus.hashing import NEXT, finish

_NOT_WORDS = re.compile(r"\W+")
_DIGITS = re.compile(r"\d")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
# Of the bytes of ASCII: letters in lower case, digits are 0, all else a space; those of longer characters stay.
_ASCII = bytes(
    byte if byte >= 128 else ord("0") if chr(byte).isdigit() else ord(chr(byte).lower()) if chr(byte).isalpha() else 32
    for byte in range(256)
)
HASHES = 2  # number of the way in which texts become shingles: an index tells with which one it was made
_NOTHING = 0xFFFFFFFF  # of a text without words; no shingle's value but with probability 2**-32
_B, _NEXT_LANE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
_FIRST_BYTES = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # of eight, little-endian
_LONG_WORD = 32  # bytes; longer ones are hashed one by one
_AT_ONCE = 1 << 20  # characters of texts whose words are hashed together, so that arrays stay in the cache
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
        if min(self.bands, self.rows, self.ngram) < 1 or self.bands >= 1 << 16 or not 0 <= self.threshold <= 1:
            raise ValueError(f"{self}: bands (below 65,536), rows and ngram are at least 1, threshold is 0 to 1")
        survivors.check_policy(self.keep)
        survivors.check_index(self.earlier, self.index, self.made_by())

    def made_by(self) -> dict:
        """What keys depend on."""
        numbers = {"bands": self.bands, "rows": self.rows, "ngram": self.ngram, "seed": self.seed}
        return {"step": "MinHash", "hashes": HASHES, **numbers}

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        texts = column(batch, "text")
        parts = [shingle_sets(texts[begin:end], self.ngram) for begin, end in pieces(texts)]
        bands = [mixed(self.signatures(*part).astype(np.uint64)) for part in parts]
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(ends, prepend=0) for _, ends in parts)])
        flat = np.concatenate([np.zeros(0, np.uint32), *(part for part, _ in parts)])
        bands = np.concatenate([np.zeros((0, self.bands), np.uint64), *bands])
        offsets = pa.array(np.cumsum(sizes), pa.int64())
        return pa.table(
            {
                "bands": pa.FixedSizeListArray.from_arrays(pa.array(bands.ravel(), pa.uint64()), self.bands),
                "shingles": pa.LargeListArray.from_arrays(offsets, pa.array(flat, pa.uint32())),
                **survivors.about(batch),
            }
        )

    def signatures(self, flat: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Of the sets flat[: ends[0]], flat[ends[0] : ends[1]], ... (sorted): uint32 [sets, bands, rows]."""
        sizes = np.diff(ends, prepend=0)
        made = np.full((len(ends), self.bands, self.rows), _NOTHING, np.uint32)
        place = np.repeat(np.arange(len(ends)) * self.bands * self.rows, sizes)
        for row, (a, b) in enumerate(_numbers(self.seed, self.rows, 1).T):
            value = permuted(flat, a, b)
            part = (value >> np.uint32(16)) * np.uint32(self.bands) >> np.uint32(16)
            np.minimum.at(made.reshape(-1), place + part * self.rows + row, value)
        a, b = _numbers(self.seed, self.bands * self.rows, 2)
        for number in np.flatnonzero((made == _NOTHING).any(axis=(1, 2)) & (sizes > 0)).tolist():
            own = flat[ends[number] - sizes[number] : ends[number]]
            made[number][made[number] == _NOTHING] = minima(own, a, b, made[number].ravel() == _NOTHING)
        return made

    def choose(self, keys: pa.Table) -> survivors.Choice:
        keys = survivors.with_earlier(keys, self.earlier)
        columns = survivors.columns_of(keys)
        sets = components.Lists(keys.column("shingles"))

        def is_alike(pairs: np.ndarray) -> np.ndarray:
            return components.jaccard(pairs, sets) >= self.threshold

        pairs = components.candidates(components.Rows(keys.column("bands")))
        group, looked_at, alike = components.clusters(len(sets), pairs, is_alike)
        gone = survivors.all_but_one(columns, group, self.keep)
        if self.index:
            survivors.write_index(keys, gone, self.index, self.made_by())
        told = duplicate_clusters.told_of(
            columns, group, gone, self.keep, functools.partial(components.jaccard, sets=sets)
        )
        counts = {"candidate pairs": looked_at, "pairs alike": alike}
        return survivors.Choice(survivors.names_of(columns, gone), counts, told)

    def take_away(self, batch: pa.RecordBatch, names: np.ndarray) -> pa.RecordBatch:
        return survivors.drop_named(batch, names, "near duplicate")


def words_of(text: str) -> bytes:
    """The words that are compared, UTF-8 with one space or more between them."""
    if text.isascii():
        return text.encode().translate(_ASCII)
    text = _BEYOND_ASCII.sub(lambda match: _words_beyond_ascii(match[0]), text.lower())
    return text.encode("utf-8", "surrogatepass").translate(_ASCII)


@functools.lru_cache(maxsize=1 << 12)
def _words_beyond_ascii(text: str) -> str:
    return _DIGITS.sub("0", _NOT_WORDS.sub(" ", _UNSPACED.sub(r" \g<0> ", text)))


def shingles(text: str, ngram: int) -> np.ndarray:
    """The set of hashes of `ngram` words in a row, sorted uint32; empty for a text without words."""
    return shingle_sets([text], ngram)[0]


def shingle_sets(texts: Sequence[str], ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the set that `shingles` gives: (all of them, uint32, where each one ends, int64 [texts])."""
    words = [words_of(text) for text in texts]
    starts, hashes = words_in(b" ".join(words))
    text_ends = np.cumsum(np.fromiter((len(one) + 1 for one in words), np.int64, len(words)))
    word_ends = np.searchsorted(starts, text_ends)
    counts = np.diff(word_ends, prepend=0)
    owner = np.repeat(np.arange(len(texts)), counts)
    value = np.zeros(max(len(hashes) - ngram + 1, 0), np.uint64)
    for i in range(ngram):
        value = value * NEXT + hashes[i : i + len(value)]
    whole = np.arange(len(value)) + ngram <= word_ends[owner[: len(value)]]
    found = [value[whole], *(short_text(hashes, word_ends, counts == size, size) for size in range(1, ngram))]
    owners = [owner[: len(value)][whole], *(np.flatnonzero(counts == size) for size in range(1, ngram))]
    shingle = finish(np.concatenate(found)) >> np.uint64(32)
    ordered = np.sort(np.concatenate(owners).astype(np.uint64) << np.uint64(32) | shingle)
    is_new = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    ordered = ordered[is_new]
    ends = np.searchsorted(ordered, np.arange(1, len(texts) + 1, dtype=np.uint64) << np.uint64(32))
    return ordered.astype(np.uint32), ends


def short_text(hashes: np.ndarray, word_ends: np.ndarray, is_so_long: np.ndarray, size: int) -> np.ndarray:
    """Of each text of `size` words all of them in a row."""
    begin = word_ends[is_so_long] - size
    value = np.zeros(len(begin), np.uint64)
    for i in range(size):
        value = value * NEXT + hashes[begin + i]
    return value


def word_hashes(text: bytes) -> np.ndarray:
    """uint64 for each word of a text with spaces between its words."""
    return words_in(text)[1]


def words_in(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(where words begin, int64, their hashes, uint64): eight bytes at a time are mixed in, so that words of eight
    bytes or fewer never have the same one."""
    padded = b" ".join((b"", text, b" " * 8))
    is_space = np.frombuffer(padded, np.uint8) == 32
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    windows = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    hashes = sizes.astype(np.uint64) * _B
    hashes = mixed_in(hashes, windows[starts] & _FIRST_BYTES[np.minimum(sizes, 8)])
    for begin in range(8, _LONG_WORD, 8):
        longer = np.flatnonzero(sizes > begin)
        lane = windows[starts[longer] + begin] & _FIRST_BYTES[np.minimum(sizes[longer] - begin, 8)]
        hashes[longer] = mixed_in(hashes[longer], lane)
    for i in np.flatnonzero(sizes > _LONG_WORD).tolist():
        hashes[i] = xxhash.xxh3_64_intdigest(padded[starts[i] : starts[i] + sizes[i]])
    return starts - 1, hashes


def mixed_in(value: np.ndarray, lane: np.ndarray) -> np.ndarray:
    value = (value ^ lane) * _NEXT_LANE
    return value ^ (value >> np.uint64(32))


def permuted(hashes: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """uint32 to uint32, one to one; a and b odd."""
    value = hashes * a
    value ^= value >> np.uint32(16)
    value *= b
    return value


def minima(hashes: np.ndarray, a: np.ndarray, b: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The least of the hashes under each of the permutations (a, b) that are `wanted`."""
    return permuted(hashes[None, :], a[wanted][:, None], b[wanted][:, None]).min(axis=1)


def pieces(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about _AT_ONCE characters, or of one longer text."""
    begin = size = 0
    for place, text in enumerate(texts):
        if size and size + len(text) > _AT_ONCE:
            yield begin, place
            begin, size = place, 0
        size += len(text)
    if begin < len(texts):
        yield begin, len(texts)


def mixed(rows: np.ndarray) -> np.ndarray:
    """uint64 [..., rows] -> [...]: one number for the rows of a band."""
    value = np.zeros(rows.shape[:-1], np.uint64)
    for i in range(rows.shape[-1]):
        value = finish(value * np.uint64(31) + rows[..., i] + np.uint64(1))
    return value


@functools.lru_cache(maxsize=8)
def _numbers(seed: int, count: int, stream: int) -> np.ndarray:
    """Odd numbers of 32 bits, [2, count]."""
    rng = np.random.Generator(np.random.PCG64([seed, stream]))
    return rng.integers(0, 1 << 32, (2, count), np.uint32) | np.uint32(1)
