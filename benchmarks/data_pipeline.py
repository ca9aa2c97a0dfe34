"""Tokens per second and core, packing fill, start-up and size of the position: our pipeline against SeqIO.

python benchmarks/data_pipeline.py [--rounds 3] [--output docs/results.md]

Every measurement is a process of its own, and the pipelines take turns. Tokens are those of both sides that are not
padding; seconds of a core are user and system time of all threads of the process.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import record, workloads
from benchmarks.pipeline_ours import write_prepared

PACKAGES = ["numpy", "grain", "array_record", "seqio", "tensorflow"]
HERE = pathlib.Path(__file__).parent


class Contestant(NamedTuple):
    """`variant`: the number of streams of ours, or whether SeqIO packs. SeqIO gets as many batches as take seconds."""

    name: str
    script: str
    workload: str
    variant: str
    num_batches: int


OURS_64, SEQIO = "ours, 64 streams", "seqio, packed"
CONTESTANTS = [
    Contestant(OURS_64, "pipeline_ours.py", "spans", "64", 512),
    Contestant(SEQIO, "pipeline_seqio.py", "spans", "packed", 200),
    Contestant("ours, 1 stream", "pipeline_ours.py", "spans", "1", 512),
    Contestant("seqio, not packed", "pipeline_seqio.py", "spans", "unpacked", 200),
    Contestant(OURS_64, "pipeline_ours.py", "single", "64", 256),
    Contestant(SEQIO, "pipeline_seqio.py", "single", "packed", 200),
    Contestant(OURS_64, "pipeline_ours.py", "pairs", "64", 256),
    Contestant(SEQIO, "pipeline_seqio.py", "pairs", "packed", 200),
]
HEADER = [
    "workload",
    "pipeline",
    "tokens / s / core",
    "against seqio, packed",
    "tokens / s (wall)",
    "fill",
    "imports, s",
    "first batch, s",
    "position, bytes",
]


def measure(contestant: Contestant, folder: pathlib.Path) -> dict:
    command = [
        sys.executable,
        str(HERE / contestant.script),
        str(folder),
        contestant.workload,
        contestant.variant,
        str(contestant.num_batches),
        str(time.time()),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def median_of(runs: list[dict], value) -> float:
    return statistics.median(value(run) for run in runs)


def tokens_per_core_second(run: dict) -> float:
    return run["tokens"] / run["cpu"]


def rows(results: dict[Contestant, list[dict]]) -> list[list[str]]:
    speed = {(c.workload, c.name): median_of(runs, tokens_per_core_second) for c, runs in results.items()}
    lines = []
    for contestant, runs in results.items():
        here = speed[contestant.workload, contestant.name]
        fill = [f"{median_of(runs, lambda run, s=side: run['fill'][s]):.3f}" for side in runs[0]["fill"]]
        lines.append(
            [
                contestant.workload,
                contestant.name,
                f"{here / 1e6:.3f} M",
                f"{here / speed[contestant.workload, SEQIO]:.1f}",
                f"{median_of(runs, lambda run: run['tokens'] / run['wall']) / 1e6:.3f} M",
                " / ".join(fill),
                f"{median_of(runs, lambda run: run['import_seconds']):.1f}",
                f"{median_of(runs, lambda run: run['first_batch_seconds']):.1f}",
                f"{median_of(runs, lambda run: run['state_bytes']):,.0f}",
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each pipeline has its turn")
    parser.add_argument("--workloads", nargs="+", choices=sorted(workloads.LENGTHS), default=sorted(workloads.LENGTHS))
    parser.add_argument("--max_characters", type=int, default=10_000_000, help="how much of the library is read")
    parser.add_argument("--output", help="file to which the table is appended")
    options = parser.parse_args()
    chosen = [contestant for contestant in CONTESTANTS if contestant.workload in options.workloads]
    results = {contestant: [] for contestant in chosen}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for workload in options.workloads:
            docs = workloads.documents(workload, options.max_characters)
            write_prepared(folder, workload, docs)
            workloads.save(folder / workload, docs)
        for _ in range(options.rounds):
            for contestant in chosen:
                results[contestant].append(measure(contestant, folder))
                run = results[contestant][-1]
                speed = f"{tokens_per_core_second(run):,.0f} tokens/s/core"
                print(f"{contestant.workload}, {contestant.name}: {speed}, fill {run['fill']}", file=sys.stderr)
    text = f"Data pipeline, medians of {options.rounds} processes each; {record.provenance(PACKAGES)}\n\n"
    record.publish(text + record.table(HEADER, rows(results)), options.output)


if __name__ == "__main__":
    main()
