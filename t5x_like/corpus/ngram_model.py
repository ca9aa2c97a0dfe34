"""N-gram models of tokens: interpolated modified Kneser-Ney, trained here, kept and read as a back-off model.

Chen and Goodman 1998 (TR-10-98), equation 26; counts as KenLM makes them (Heafield et al. 2013, section 3): the highest
order and n-grams that begin a line are counted as they occur, all others by how many different tokens stand before
them; line ends are predicted, line beginnings are not; an unknown token has what interpolation leaves to every token.

A back-off model gives log10 p of each n-gram that was seen and log10 of the weight of each as a context, which says the
same of interpolated ones: p(w | h) = p if h w was seen, else weight(h) p(w | h less its first token).

An n-gram is told by a 64-bit hash of its token ids: among 10**8 of them a chance match has probability 3e-4.
"""

import functools
import io
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from t5x_like.corpus.hashing import NEXT, finish
from t5x_like.tasks.files import open_bytes

BEGIN, END, UNKNOWN = 0, 1, 2  # token ids of a model; the ids of a vocabulary follow at FIRST
FIRST = 3
_FALLBACK = (0.5, 1.0, 1.5)  # discounts where counts of counts give none (KenLM's --discount_fallback)


class Level(NamedTuple):
    """All n-grams of one length: hashes, ascending, uint64 [n]; log10 p and log10 of the back-off weight [n]."""

    keys: np.ndarray
    log_p: np.ndarray
    backoff: np.ndarray


class Lines(NamedTuple):
    """Lines as one row of tokens: BEGIN, ids, END, BEGIN, ...; ids int64 [n], place in the line int64 [n]."""

    ids: np.ndarray
    place: np.ndarray


def lines_of(lines: Sequence[Sequence[int]]) -> Lines:
    """Token ids of lines (from FIRST on) with their ends."""
    sizes = np.fromiter(map(len, lines), np.int64, len(lines)) + 2
    starts = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    inner = np.ones(total, bool)
    inner[starts] = inner[starts + sizes - 1] = False
    ids = np.full(total, END, np.int64)
    ids[starts] = BEGIN
    ids[inner] = np.concatenate([np.zeros(0, np.int64), *(np.asarray(line, np.int64) for line in lines)])
    return Lines(ids, np.arange(total) - np.repeat(starts, sizes))


def hashes_of(ids: np.ndarray, length: int) -> np.ndarray:
    """Of the `length` tokens that end at each place, uint64 [n]; the first places have those of fewer tokens."""
    value = np.zeros(len(ids), np.uint64)
    for back in range(min(length, len(ids)) - 1, -1, -1):
        value[back:] = value[back:] * NEXT + ids[: len(ids) - back].astype(np.uint64) + np.uint64(1)
        value = finish(value)
    return value


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index in the ascending `keys` of each of `wanted`, -1 where it is not there; wanted in its own order is slow."""
    distinct, inverse = np.unique(wanted, return_inverse=True)
    if not len(keys):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(keys, distinct), len(keys) - 1)
    return np.where(keys[at] == distinct, at, -1)[inverse]


def log_probabilities(levels: Sequence[Level], lines: Lines) -> np.ndarray:
    """log10 p of every token after those before it in its line, float64 [n]; 0 at the beginnings."""
    first = levels[0]
    at = find(first.keys, hashes_of(lines.ids, 1))
    unknown = find(first.keys, hashes_of(np.array([UNKNOWN]), 1))[0]
    at = np.where(at < 0, unknown, at)
    result = first.log_p[at].astype(np.float64)
    context = np.concatenate([[-1], at[:-1]])  # index of the tokens before, as an n-gram one shorter
    weights = first.backoff
    for length, level in enumerate(levels[1:], 2):
        valid = lines.place >= length - 1
        found = np.full(len(lines.ids), -1)
        found[valid] = find(level.keys, hashes_of(lines.ids, length)[valid])
        known = valid & (context >= 0)
        backed = result + np.where(known, weights[context], 0.0)
        result = np.where(found >= 0, level.log_p[found] if len(level.keys) else 0.0, np.where(valid, backed, result))
        context, weights = np.concatenate([[-1], found[:-1]]), level.backoff
    return np.where(lines.place == 0, 0.0, result)


class Counted(NamedTuple):
    """The n-grams of one length that occur: hashes, ascending; a place where each ends; adjusted counts, all [n]."""

    keys: np.ndarray
    where: np.ndarray
    counts: np.ndarray


def train(lines: Lines, order: int, vocabulary: int) -> list[Level]:
    """Levels 1 to `order` of the tokens of `lines`; `vocabulary`: how many ids there are, those below FIRST too."""
    hashes = [hashes_of(lines.ids, length) for length in range(1, order + 1)]
    counted = adjusted_counts(lines, hashes)
    keys, p = single_tokens(counted[0], vocabulary)
    levels = []
    for length in range(2, order + 1):
        own, shorter = counted[length - 1], hashes[length - 2]
        context = find(keys, shorter[own.where - 1])
        following, weight = interpolated(own.counts, context, p[find(keys, shorter[own.where])], len(keys))
        levels.append(level_of(keys, p, weight))
        keys, p = own.keys, following
    return [*levels, level_of(keys, p, np.ones(len(keys)))]


def level_of(keys: np.ndarray, p: np.ndarray, weight: np.ndarray) -> Level:
    return Level(keys, np.log10(p).astype(np.float32), np.log10(weight).astype(np.float32))


def adjusted_counts(lines: Lines, hashes: Sequence[np.ndarray]) -> list[Counted]:
    """Of each length; `hashes` of the n-gram of each length that ends at each place."""
    found = []
    for length, ends in enumerate(hashes, 1):
        places = np.flatnonzero(lines.place >= length - 1)
        keys, first, counts = np.unique(ends[places], return_index=True, return_counts=True)
        found.append(Counted(keys, places[first], counts.astype(np.float64)))
    for number, (own, longer) in enumerate(itertools.pairwise(found)):
        different = np.bincount(find(own.keys, hashes[number][longer.where]), minlength=len(own.keys))
        begins_line = lines.place[own.where] == number  # nothing stands before it
        found[number] = own._replace(counts=np.where(begins_line, own.counts, different))
    return found


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 0, 1, 2, and 3 or more, float64 [4] (Chen and Goodman 1998, equation 26)."""
    n = [0, *(int((counts == k).sum()) for k in range(1, 5))]
    if 0 in n[1:]:
        return np.array([0.0, *_FALLBACK])
    y = n[1] / (n[1] + 2 * n[2])
    found = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
    is_one = [0 < taken < k for k, taken in zip((1, 2, 3), found, strict=True)]
    return np.array([0.0, *np.where(is_one, found, _FALLBACK)])


def interpolated(
    counts: np.ndarray, context: np.ndarray, lower: np.ndarray, contexts: int
) -> tuple[np.ndarray, np.ndarray]:
    """(p of every n-gram, the weight that each of `contexts` leaves to the level below: 1 where nothing follows).

    context   of every n-gram, an index; lower: what the level below says of its last token
    """
    taken = discounts(counts)[np.minimum(counts, 3).astype(np.int64)]
    total = np.bincount(context, counts, contexts)
    weight = np.divide(np.bincount(context, taken, contexts), total, out=np.ones(contexts), where=total > 0)
    return (counts - taken) / total[context] + weight[context] * lower, weight


def single_tokens(counted: Counted, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, p) of all tokens, those that do not occur too; of BEGIN, which nothing predicts, nearly 0."""
    every = finish(np.arange(vocabulary).astype(np.uint64) + np.uint64(1))
    order = np.argsort(every)
    at = find(counted.keys, every[order])
    counts = np.where((at >= 0) & (order != BEGIN), counted.counts[at], 0.0)
    uniform = np.full(vocabulary, 1 / (vocabulary - 1))
    p, _ = interpolated(counts, np.zeros(vocabulary, np.int64), uniform, 1)
    return every[order], np.where(order == BEGIN, 1e-99, p)


def save(levels: Sequence[Level], folder: pathlib.Path) -> None:
    for number, level in enumerate(levels, 1):
        for name, values in level._asdict().items():
            np.save(folder / f"{number}-{name}.npy", values)


@functools.lru_cache(maxsize=8)
def load(folder: str) -> tuple[Level, ...]:
    """Mapped, so that all processes share one copy in memory."""
    orders = len(list(pathlib.Path(folder).glob("*-keys.npy")))
    if not orders:
        raise ValueError(f"{folder} holds no n-gram model: name a folder under models/ of a corpus")
    return tuple(
        Level(*(np.load(pathlib.Path(folder, f"{n}-{name}.npy"), mmap_mode="r") for name in Level._fields))
        for n in range(1, orders + 1)
    )


def read_arpa(path: pathlib.Path) -> tuple[list[Level], dict[str, int]]:
    """(levels, {word: id}) of an ARPA file, compressed or not, as KenLM's lmplz and SRILM write it."""
    words = {"<s>": BEGIN, "</s>": END, "<unk>": UNKNOWN}
    with open_bytes(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape")
        levels = [_arpa_level(rows, length, words) for length, rows in _arpa_sections(lines, path)]
    if not levels:
        raise ValueError(f"{path} is no ARPA file: it has no section \\1-grams: (a binary file of KenLM: KenlmFile)")
    return levels, words


def _arpa_sections(file, path: pathlib.Path) -> Iterator[tuple[int, list[list[str]]]]:
    length, rows = 0, []
    for line in file:
        line = line.rstrip("\n")
        if (line.endswith("-grams:") and line.startswith("\\")) or line == "\\end\\":
            if length:
                yield length, rows
            length, rows = (0, []) if line == "\\end\\" else (int(line[1 : line.index("-")]), [])
        elif length and line:
            rows.append(line.split("\t"))
    if length:
        raise ValueError(f"{path} ends before \\end\\: the file is cut off, copy it again")


def _arpa_level(rows: list[list[str]], length: int, words: dict[str, int]) -> Level:
    ids = np.array(
        [[words.setdefault(word, len(words)) for word in row[1].split(" ")] for row in rows], np.int64
    ).reshape(len(rows), length)
    keys = np.zeros(len(rows), np.uint64)
    for column in range(length):
        keys = finish(keys * NEXT + ids[:, column].astype(np.uint64) + np.uint64(1))
    order = np.argsort(keys)
    log_p = np.array([float(row[0]) for row in rows], np.float32)
    backoff = np.array([float(row[2]) if len(row) > 2 else 0.0 for row in rows], np.float32)
    return Level(keys[order], log_p[order], backoff[order])
