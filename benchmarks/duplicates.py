"""Near duplicates on planted copies: what is found and what goes wrongly, by true Jaccard, beside theory.

python -m benchmarks.duplicates [--text FOLDER ...] [--megabytes 20] [--plot docs/duplicates.png] [--output FILE]

Of each text one copy is planted: exact, reformatted (other spaces, capitals), with boilerplate before and behind, or
with 0.2 to 30 % of its words replaced. MinHash and SimHash look at all documents; what they take away is compared with
the true Jaccard similarity of sets of shingles, which is known of every pair that any of them looked at.
"""

import argparse
import random
import re
import sysconfig
import time
from typing import NamedTuple

import numpy as np

from benchmarks import record
from benchmarks.corpus import real_documents
from t5x_like.corpus import components, simhash
from t5x_like.corpus.documents import batch_of
from t5x_like.corpus.minhash import MinHash
from t5x_like.corpus.simhash import SimHash

EDITS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
KINDS = ("exact", "reformatted", "boilerplate", *(f"{rate:.1%} of words" for rate in EDITS))
BINS = (0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Planted(NamedTuple):
    """texts   of all documents; pairs of (original, copy), int64 [pairs, 2]; kinds, numbers in KINDS [pairs]."""

    texts: list[str]
    pairs: np.ndarray
    kinds: np.ndarray


def plant(texts: list[str], seed: int = 0) -> Planted:
    """One copy of each text, of the kinds in turn."""
    rng, copies = random.Random(seed), []
    words = re.findall(r"[a-z]{3,9}", " ".join(texts[:200]).lower())
    for number, text in enumerate(texts):
        kind = KINDS[number % len(KINDS)]
        if kind == "reformatted":
            text = re.sub(r"\s+", "\n  ", text).upper()
        elif kind == "boilerplate":
            menu = f"Home | About | Contact {' '.join(rng.choices(words, k=5))}"
            text = f"{menu}\n{text}\nAll rights reserved, {' '.join(rng.choices(words, k=10))}"
        elif kind != "exact":
            rate = EDITS[KINDS.index(kind) - 3]
            text = re.sub(r"\w+", lambda word: rng.choice(words) if rng.random() < rate else word[0], text)  # noqa: B023
        copies.append(text)
    originals = np.arange(len(texts))
    return Planted([*texts, *copies], np.stack([originals, originals + len(texts)], axis=1), originals % len(KINDS))


class Found(NamedTuple):
    """candidates  pairs that the step compares, int64 [n, 2]
    alike       their true Jaccard similarity by shingles of MinHash [n]
    seconds     of CPU, for keys and candidates
    """

    candidates: np.ndarray
    alike: np.ndarray
    seconds: float


def look(step: MinHash | SimHash, texts: list[str], sets: components.Lists) -> Found:
    began = time.process_time()
    keys = step.keys(batch_of([{"text": text, "file": 0, "row": i} for i, text in enumerate(texts)]))
    if isinstance(step, MinHash):
        bands = components.Rows(keys.column("bands"))
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *components.candidates(bands)])
    else:
        prints = keys.column("fingerprint").to_numpy()
        pairs = np.concatenate(list(simhash.candidates(prints, step.distance)))
        pairs = pairs[np.bitwise_count(prints[pairs[:, 0]] ^ prints[pairs[:, 1]]) <= step.distance]
    seconds = time.process_time() - began
    return Found(pairs, components.jaccard(pairs, sets), seconds)


def is_among(pairs: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    return np.isin(pairs[:, 0] * count + pairs[:, 1], found[:, 0] * count + found[:, 1])


def theory(similarity: np.ndarray, step: MinHash) -> np.ndarray:
    return 1 - (1 - similarity**step.rows) ** step.bands


def recall_rows(true: np.ndarray, by: dict[str, np.ndarray], expected: np.ndarray) -> list[list[str]]:
    """Of planted pairs by true Jaccard: how many, the share that each step finds, and what theory says."""
    rows = []
    for low, high in zip(BINS, [*BINS[1:-1], 2.0], strict=False):
        inside = (true >= low) & (true < high)
        if inside.any():
            told = [f"{hit[inside].mean():.3f}" for hit in by.values()]
            rows.append([name_of(low, high), str(inside.sum()), *told, f"{expected[inside].mean():.3f}"])
    return rows


def kind_rows(planted: Planted, true: np.ndarray, by: dict[str, np.ndarray]) -> list[list[str]]:
    rows = []
    for number, kind in enumerate(KINDS):
        inside = planted.kinds == number
        told = [f"{hit[inside].mean():.3f}" for hit in by.values()]
        rows.append([kind, str(inside.sum()), f"{np.median(true[inside]):.2f}", *told])
    return rows


def best_of_removed(count: int, pairs: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Of each document but the first of every cluster of `pairs`: how alike the most similar one in it is."""
    group = components.components(count, lambda: iter([pairs]))
    best = np.zeros(count)
    np.maximum.at(best, pairs[:, 0], alike)
    np.maximum.at(best, pairs[:, 1], alike)
    return best[group != np.arange(count)]


def removed_rows(removed: dict[str, np.ndarray]) -> list[list[str]]:
    rows = []
    for low, high in zip(BINS, [*BINS[1:-1], 2.0], strict=False):
        rows.append([name_of(low, high), *(str(int(((b >= low) & (b < high)).sum())) for b in removed.values())])
    return rows


def name_of(low: float, high: float) -> str:
    return f"{low:.1f} - {min(high, 1.0):.1f}"


def plot(true: np.ndarray, by: dict[str, np.ndarray], removed: dict[str, np.ndarray], path: str) -> None:
    """Left: the share found by true Jaccard with two standard errors; right: how alike what went was to another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    curve = np.linspace(0, 1, 200)
    left.plot(curve, theory(curve, MinHash()), color="0.3", label="theory of MinHash, 14 bands of 8")
    edges = np.linspace(0, 1.0001, 21)
    for number, (name, hit) in enumerate(by.items()):
        place = np.digitize(true, edges)
        points = [(true[place == i].mean(), hit[place == i].mean(), (place == i).sum()) for i in np.unique(place)]
        x, share, count = map(np.array, zip(*points, strict=True))
        error = 2 * np.sqrt(np.maximum(share * (1 - share), 1 / count) / count)
        below = np.minimum(error, share)
        left.errorbar(x, share, yerr=[below, np.minimum(error, 1 - share)], fmt="os"[number % 2], ms=4, label=name)
    left.set(xlabel="true Jaccard similarity of the planted pair", ylabel="share found", ylim=(-0.03, 1.03))
    left.legend(fontsize=8)
    right.hist(list(removed.values()), bins=np.linspace(0, 1, 21), label=list(removed))
    right.set(xlabel="true Jaccard similarity with the nearest in its cluster", ylabel="documents taken away")
    right.set_yscale("log")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", nargs="*", default=[sysconfig.get_paths()["stdlib"], "/usr/share/doc"])
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--plot", help="PNG file of the curves")
    parser.add_argument("--output", help="file to which the tables are appended")
    options = parser.parse_args()
    planted = plant(real_documents(options.text, int(options.megabytes * 1e6)))
    count, size = len(planted.texts), sum(map(len, planted.texts)) / 1e6
    min_hash, sim_hash = MinHash(), SimHash()
    keys = min_hash.keys(batch_of([{"text": text, "file": 0, "row": i} for i, text in enumerate(planted.texts)]))
    sets = components.Lists(keys.column("shingles"))
    true = components.jaccard(planted.pairs, sets)
    steps = {"MinHash": look(min_hash, planted.texts, sets), "SimHash": look(sim_hash, planted.texts, sets)}
    by = {name: is_among(planted.pairs, found.candidates, count) for name, found in steps.items()}
    removed = {}
    for (name, found), least in zip(steps.items(), (min_hash.threshold, sim_hash.threshold), strict=True):
        checked = found.alike >= least
        removed[name] = best_of_removed(count, found.candidates, found.alike)
        removed[f"{name}, checked"] = best_of_removed(count, found.candidates[checked], found.alike[checked])
    near = true >= 0.9
    missed = int((near & ~by["MinHash"]).sum())
    text = f"{count:,} documents, {size:.0f} MB. Of {near.sum():,} planted pairs at a Jaccard of .9 or more MinHash "
    text += f"misses {missed} (theory: {(1 - theory(true[near], min_hash)).sum():.2f}). CPU seconds for keys and "
    text += "candidates: " + ", ".join(f"{name} {found.seconds:.1f}" for name, found in steps.items()) + ".\n\n"
    recall = recall_rows(true, by, theory(true, min_hash))
    text += record.table(["true Jaccard", "planted pairs", *by, "theory of MinHash"], recall) + "\n\n"
    text += record.table(["copy", "pairs", "median Jaccard", *by], kind_rows(planted, true, by)) + "\n\n"
    text += record.table(["nearest in its cluster", *removed], removed_rows(removed))
    text += f"\n\n{record.provenance(['numpy', 'pyarrow'])}\n"
    if options.plot:
        plot(true, by, removed, options.plot)
    record.publish(text, options.output)


if __name__ == "__main__":
    main()
