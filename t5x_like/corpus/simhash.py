"""Near duplicates by SimHash: fingerprints of 64 bits that differ in few (Charikar 2002; Manku et al. 2007).

  shingles     `ngram` words in a row, as MinHash's; each has 64 bits of its own
  fingerprint  a bit is set where more of the shingles have it set than not
  candidates   every pair within `distance` bits: of distance + 3 blocks of bits three are the same, so that the pairs
               that agree on some three blocks hold them all (Manku et al., section 3)
  duplicates   those within `distance`, whose sets of shingles have a Jaccard similarity of at least `threshold`

Of documents of C4's kind a tenth of the pairs within 3 bits are not alike (Jaccard below .5), and half of those within
7: hence the check. A fingerprint is 8 bytes where MinHash's bands are 112, and finds light edits alone.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from t5x_like.corpus import components, duplicate_clusters, survivors
from t5x_like.corpus.documents import column
from t5x_like.corpus.hashing import finish
from t5x_like.corpus.minhash import HASHES, pieces, shingle_sets

BITS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimHash:
    """keep             the policy of `survivors`
    earlier, index   files of keys: of corpora that must not be repeated, and where to write this one's with theirs
    """

    distance: int = 3
    ngram: int = 3
    threshold: float = 0.5
    keep: str = "longest"
    earlier: Sequence[str] = ()
    index: str = ""

    def __post_init__(self):
        if not 0 <= self.distance <= 7 or self.ngram < 1 or not 0 <= self.threshold <= 1:
            raise ValueError(f"{self}: distance is 0 to 7 bits, ngram at least 1, threshold between 0 and 1")
        survivors.check_policy(self.keep)
        survivors.check_index(self.earlier, self.index, self.made_by())

    def made_by(self) -> dict:
        """What keys depend on."""
        return {"step": "SimHash", "hashes": HASHES, "ngram": self.ngram}

    def keys(self, batch: pa.RecordBatch) -> pa.Table:
        texts, sets = column(batch, "text"), []
        for begin, end in pieces(texts):
            sets += np.split(*shingle_sets(texts[begin:end], self.ngram))[:-1]
        offsets = np.cumsum([0, *map(len, sets)])
        flat = np.concatenate([np.zeros(0, np.uint32), *sets])
        return pa.table(
            {
                "fingerprint": pa.array([fingerprint(one) for one in sets], pa.uint64()),
                "shingles": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(flat, pa.uint32())),
                **survivors.about(batch),
            }
        )

    def choose(self, keys: pa.Table) -> survivors.Choice:
        keys = survivors.with_earlier(keys, self.earlier)
        columns = survivors.columns_of(keys)
        fingerprints = keys.column("fingerprint").to_numpy()
        sets = components.Lists(keys.column("shingles"))

        def is_alike(pairs: np.ndarray) -> np.ndarray:
            near = np.bitwise_count(fingerprints[pairs[:, 0]] ^ fingerprints[pairs[:, 1]]) <= self.distance
            alike = np.zeros(len(pairs), bool)
            # Texts without words are duplicates of nothing: their sets are empty, and their similarity 0.
            similar = components.jaccard(pairs[near], sets)
            alike[near] = (similar >= self.threshold) & (similar > 0)
            return alike

        pairs = candidates(fingerprints, self.distance)
        group, looked_at, alike = components.clusters(len(fingerprints), pairs, is_alike)
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


def fingerprint(hashes: np.ndarray) -> int:
    """Of a set of shingles, uint32 [n]: 64 bits, each that of the majority; 0 for none."""
    if not len(hashes):
        return 0
    bits = np.unpackbits(finish(hashes.astype(np.uint64) + np.uint64(1)).view(np.uint8).reshape(-1, 8), axis=1)
    return int(np.packbits(2 * bits.sum(axis=0, dtype=np.int64) > len(hashes)).view(np.uint64)[0])


def candidates(fingerprints: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Pairs i < j, int64 [n, 2], in blocks: all that differ in at most `distance` bits are among them.

    Of equal fingerprints each is paired with the first, which connects them; the others are compared by one of each.
    """
    distinct, first, inverse = np.unique(fingerprints, return_index=True, return_inverse=True)
    others = np.flatnonzero(first[inverse] != np.arange(len(fingerprints)))
    yield np.stack([first[inverse[others]], others], axis=1)
    if not distance:
        return
    blocks = [np.bitwise_or.reduce(part) for part in np.array_split(_POWERS, distance + 3)]
    masks = [np.bitwise_or.reduce(kept) for kept in itertools.combinations(blocks, 3)]
    for number, mask in enumerate(masks):
        for pairs in all_equal_pairs(distinct & mask):
            a, b = distinct[pairs[:, 0]], distinct[pairs[:, 1]]
            seen = np.zeros(len(pairs), bool)
            for before in masks[:number]:
                seen |= (a & before) == (b & before)
            yield np.sort(first[pairs[~seen]], axis=1)


_POWERS = np.uint64(1) << np.arange(BITS, dtype=np.uint64)


def all_equal_pairs(values: np.ndarray) -> Iterator[np.ndarray]:
    """Every pair of places with equal values, int64 [n, 2], about components.BLOCK at a time."""
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order], prepend=~values[order[:1]], append=~values[order[-1:]]))
    held, found = 0, []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        for place in range(start + 1, stop):
            found.append(np.stack([order[start:place], np.full(place - start, order[place])], axis=1))
            held += place - start
            if held >= components.BLOCK:
                yield np.concatenate(found)
                held, found = 0, []
    if found:
        yield np.concatenate(found)
