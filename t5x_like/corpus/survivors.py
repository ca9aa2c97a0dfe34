"""Which one of several copies stays: policies, by name, over keys that tell (file, row, length, quality).

Every policy ends with the name of the document, (file, row), so that the same one stays whatever the order of work.
"""

import numpy as np

POLICIES = {
    "earliest": lambda keys: (keys["row"], keys["file"]),
    "longest": lambda keys: (keys["row"], keys["file"], -keys["length"]),
    "best": lambda keys: (keys["row"], keys["file"], -keys["quality"]),
}
NAME = np.dtype([("file", np.int32), ("row", np.int64)])


def check_policy(policy: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"keep {policy!r}: choose one of {', '.join(POLICIES)}")


def all_but_one(keys: dict[str, np.ndarray], group: np.ndarray, policy: str) -> np.ndarray:
    """Indices of documents that go: of each group all but the one that the policy prefers."""
    order = np.lexsort((*POLICIES[policy](keys), group))
    is_first = np.ones(len(order), bool)
    is_first[1:] = group[order][1:] != group[order][:-1]
    return np.sort(order[~is_first])


def names_of(keys: dict[str, np.ndarray], indices: np.ndarray) -> np.ndarray:
    names = np.empty(len(indices), NAME)
    names["file"], names["row"] = keys["file"][indices], keys["row"][indices]
    return names
