"""Near duplicates and a whole recipe: recall on planted copies, MB per CPU-second, memory; datatrove beside it.

python -m benchmarks.corpus [--text FOLDER ...] [--megabytes 80] [--datatrove PYTHON] [--output docs/results.md]

Documents are the text files below the folders (default: the Python standard library and /usr/share/doc), and planted
copies of them: the same words with other spaces and case, lines added before and behind, 2 to 30 % of the words
replaced. PYTHON is the interpreter of an environment with datatrove; without it there is no comparison.
"""

import argparse
import json
import pathlib
import random
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time

import numpy as np

from benchmarks import record
from t5x_like.corpus.c4 import C4
from t5x_like.corpus.cleaning import RepairText, Whitespace
from t5x_like.corpus.components import Rows, candidates
from t5x_like.corpus.curate import curate
from t5x_like.corpus.documents import batch_of
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.fineweb import FineWeb
from t5x_like.corpus.gopher import GopherQuality, GopherRepetition
from t5x_like.corpus.minhash import MinHash, shingles
from t5x_like.corpus.sources import Source
from t5x_like.tasks.readers import JsonLines

KINDS = {"exact": 0.15, "reformatted": 0.2, "boilerplate": 0.2, "edited": 0.45}
DATATROVE = pathlib.Path(__file__).with_name("corpus_datatrove.py")
FILTERS = (GopherRepetition(), GopherQuality(), C4(must_end_sentence=False), FineWeb())


def real_documents(folders: list[str], most_bytes: int) -> list[str]:
    texts, size = [], 0
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if size > most_bytes:
                return texts
            if (
                path.is_file()
                and path.suffix in ("", ".py", ".txt", ".md", ".rst", ".html")
                and path.stat().st_size < 10**6
            ):
                text = path.read_text(encoding="utf-8", errors="ignore")
                if len(text) > 300 and "\x00" not in text:
                    texts.append(text)
                    size += len(text)
    return texts


def planted(texts: list[str], share: float = 0.35) -> tuple[list[str], list[tuple[int, int]]]:
    """(all documents, pairs (original, copy))."""
    rng = random.Random(0)
    words = re.findall(r"[a-z]{3,9}", " ".join(texts[:200]).lower())
    made, pairs = list(texts), []
    for original in rng.sample(range(len(texts)), int(share * len(texts))):
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        text = texts[original]
        if kind == "reformatted":
            text = re.sub(r"\s+", "\n  ", text).upper()
        elif kind == "boilerplate":
            behind = " ".join(rng.choices(words, k=30))
            text = f"Home | About | Contact {rng.random()}\n{text}\nAll rights reserved, {behind}"
        elif kind == "edited":
            rate = rng.uniform(0.002, 0.3)
            text = " ".join(rng.choice(words) if rng.random() < rate else word for word in text.split())
        pairs.append((original, len(made)))
        made.append(text)
    return made, pairs


def recall_rows(texts: list[str], pairs: list[tuple[int, int]]) -> list[list[str]]:
    """By true Jaccard similarity: planted pairs, how many banding finds, and what theory says."""
    finder = MinHash()
    keys = finder.keys(batch_of([{"text": text, "file": 0, "row": i} for i, text in enumerate(texts)]))
    bands = Rows(keys.column("bands"))
    found = {tuple(pair) for pairs in candidates(bands) for pair in pairs.tolist()}
    similarity, hit = [], []
    for i, j in pairs:
        a, b = shingles(texts[i], finder.ngram), shingles(texts[j], finder.ngram)
        both = len(np.intersect1d(a, b))
        similarity.append(both / max(len(a) + len(b) - both, 1))
        hit.append((i, j) in found)
    similarity, hit = np.array(similarity), np.array(hit)
    rows = []
    for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)):
        inside = (similarity >= low) & (similarity < high)
        theory = 1 - (1 - similarity[inside] ** finder.rows) ** finder.bands
        rows.append(
            [f"{low} - {min(high, 1):.1f}", str(inside.sum()), f"{hit[inside].mean():.3f}", f"{theory.mean():.3f}"]
        )
    gone = finder.choose(keys).gone
    alone = np.setdiff1d(gone["row"], [i for pair in pairs for i in pair])
    rows.append(["removed, in no planted pair", str(len(alone)), "", ""])
    return rows


def measured(name: str, steps: tuple, path: pathlib.Path, out: pathlib.Path) -> list[str]:
    """In a process of its own, so that its CPU time and memory are told apart."""
    code = f"from benchmarks import corpus; corpus.run_recipe({name!r}, {str(path)!r}, {str(out)!r})"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return describe(f"ours, {name}", path, before, time.perf_counter() - began, told.strip().splitlines()[-1])


def describe(name: str, path: pathlib.Path, before, wall: float, told: str) -> list[str]:
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    megabytes = path.stat().st_size / 1e6
    said = json.loads(told)
    return [
        name,
        f"{megabytes:.0f}",
        f"{cpu:.1f}",
        f"{wall:.1f}",
        f"{megabytes / cpu:.1f}",
        f"{said['peak']:.0f}",
        str(said["kept"]),
    ]


RECIPES = {
    "MinHash": (MinHash(threshold=0.0),),
    "MinHash, checked": (MinHash(threshold=0.7),),
    "filters": FILTERS,
    "whole recipe": (RepairText(), Whitespace(), *FILTERS, ExactDuplicates(), MinHash()),
}


def run_recipe(name: str, path: str, out: str) -> None:
    source = Source(reader=JsonLines([path]), name="docs", language="en")
    manifest = curate(output_dir=out, sources=[source], steps=RECIPES[name], shards=4)
    status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would begin with that of the process before
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    print(json.dumps({"kept": manifest["kept"], "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", nargs="*", default=[sysconfig.get_paths()["stdlib"], "/usr/share/doc"])
    parser.add_argument("--megabytes", type=float, default=80)
    parser.add_argument("--times", type=int, nargs="*", default=[1, 4], help="sizes of the input, as multiples")
    parser.add_argument("--recipes", nargs="*", default=["whole recipe"], help="what runs on sizes above the first")
    parser.add_argument("--datatrove", help="python of an environment with datatrove")
    parser.add_argument("--output", help="file to which the tables are appended")
    options = parser.parse_args()
    texts, pairs = planted(real_documents(options.text, int(options.megabytes * 1e6)))
    text = record.table(["Jaccard", "planted pairs", "found", "theory"], recall_rows(texts, pairs)) + "\n\n"
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for times in options.times:
            path = folder / f"{times}.jsonl"
            rng = random.Random(1)
            with path.open("w") as file:
                for turn in range(times):
                    for document in texts:
                        other = document if not turn else perturbed(document, rng)
                        file.write(json.dumps({"text": other}) + "\n")
            for number, name in enumerate(RECIPES if times == 1 else options.recipes):
                rows.append(measured(name, RECIPES[name], path, folder / f"out{times}-{number}"))
                print(rows[-1], file=sys.stderr)
        for job in ("filters", "minhash", "whole", "whole-plain") if options.datatrove else ():
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            command = [options.datatrove, str(DATATROVE), job, str(folder / "1.jsonl"), str(folder / f"dt-{job}")]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = describe(
                f"datatrove, {job}",
                folder / "1.jsonl",
                before,
                time.perf_counter() - began,
                told.strip().splitlines()[-1],
            )
            rows.append(row)
            print(row, file=sys.stderr)
    header = ["job", "MB", "CPU s", "wall s", "MB / CPU s", "peak MB", "documents kept"]
    text += record.table(header, rows) + f"\n\n{record.provenance(['pyarrow', 'numpy', 'ftfy', 'xxhash'])}\n"
    record.publish(text, options.output)


def perturbed(text: str, rng: random.Random) -> str:
    """Another document of the same kind: its lines in another order, a third of them without a word."""
    lines = text.split("\n")
    rng.shuffle(lines)
    return "\n".join(line.partition(" ")[2] if rng.random() < 0.33 else line for line in lines)


if __name__ == "__main__":
    main()
