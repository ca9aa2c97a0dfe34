"""What is told of groups of duplicates: how many there are of each size, and the largest ones with their members.

Of a corpus of any size that is a page: SHOWN clusters, MEMBERS of each. Of documents of earlier corpora nothing but
their keys is known.
"""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from t5x_like.corpus import mapped, tally
from t5x_like.corpus.documents import column
from t5x_like.corpus.survivors import EARLIER, UNDATED

SHOWN, MEMBERS = 10, 8
_TOLD = ("source", "url", "path", "text")


def told_of(
    keys: Mapping[str, np.ndarray],
    group: np.ndarray,
    gone: np.ndarray,
    keep: str,
    likeness: Callable[[np.ndarray], np.ndarray],
) -> dict:
    """As JSON: {"keep": policy, "sizes": {documents: clusters}, "largest": [{"documents": n, "members": [...]}]}.

    The member that stays comes first; earlier documents all stay.

    keys       `survivors.columns_of`; group: the same number for documents of a cluster; gone: indices that go
    likeness   of pairs of indices, int64 [n, 2]: 0 to 1; each member is compared with the first
    """
    goes = np.zeros(len(group), bool)
    goes[gone] = True
    order = np.argsort(group, kind="stable")
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    sizes, clusters = np.unique(counts[counts > 1], return_counts=True)
    largest = [place for place in np.argsort(-counts, kind="stable")[:SHOWN].tolist() if counts[place] > 1]
    found = []
    for place in largest:
        members = order[first[place] : first[place] + counts[place]]
        shown = members[np.argsort(goes[members], kind="stable")][:MEMBERS]
        like = likeness(np.stack([np.full(len(shown), shown[0]), shown], axis=1))
        told = [member_of(keys, one, bool(goes[one]), value) for one, value in zip(shown, like.tolist(), strict=True)]
        found.append({"documents": int(counts[place]), "members": told})
    by_size = {str(size): number for size, number in zip(sizes.tolist(), clusters.tolist(), strict=True)}
    return {"keep": keep, "sizes": by_size, "largest": found}


def member_of(keys: Mapping[str, np.ndarray], index: int, goes: bool, like: float) -> dict:
    date = int(keys["date"][index])
    return {
        "file": int(keys["file"][index]),
        "row": int(keys["row"][index]),
        "goes": goes,
        "like": round(like, 4),
        "characters": int(keys["length"][index]),
        "quality": round(float(keys["quality"][index]), 4),
        "date": "" if date == UNDATED else f"{date:014d}",
    }


def described(told: dict, paths: Mapping[int, pathlib.Path]) -> dict:
    """`told`, and of each member that is in one of the files its source, address and the beginning of its text."""
    for cluster in told["largest"]:
        for member in cluster["members"]:
            if member["file"] != EARLIER:
                member |= document_at(paths[member["file"]], member["row"])
    return told


def document_at(path: pathlib.Path, row: int) -> dict[str, str]:
    """Rows ascend in the file and its batches."""
    reader = mapped.open_mapped(path)
    low, high = 0, reader.num_record_batches - 1
    while low < high:
        middle = (low + high) // 2
        batch = reader.get_batch(middle)
        low, high = (low, middle) if batch.column(1)[len(batch) - 1].as_py() >= row else (middle + 1, high)
    batch = reader.get_batch(low)
    place = int(np.searchsorted(batch.column(1).to_numpy(), row))
    one: pa.RecordBatch = batch.slice(place, 1)
    return {name: column(one, name)[0][: tally.EXAMPLE_CHARACTERS] for name in _TOLD}
