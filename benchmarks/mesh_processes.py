"""The same 6 steps of a T5 of 4 + 4 layers, whole loop, as one process and as several over loopback, one device each.

python -m benchmarks.mesh_processes --output docs/results.md
"""

import argparse
import functools
import json
import pathlib
import socket
import subprocess
import sys
import tempfile

import jax
import numpy as np

from benchmarks import record
from t5x_like.models.attention import Attention
from t5x_like.models.encoder_decoder import t5_layer
from t5x_like.models.ring_attention import ring
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.partitioning.stages import pipelined
from t5x_like.train.distributed import start_distributed
from tests.train import tiny

STEPS = 6
ring_attention = functools.partial(Attention, logit_scale=1.0, kernel=ring)
RING = {"layers": functools.partial(t5_layer, attention=ring_attention, cross_attention=ring_attention)}
STAGES = {"layer_loop": pipelined(num_microbatches=4)}
# name -> (sizes of the mesh, changes of the model)
RUNS = {
    "1 process": ({}, {}),
    "2 processes, context 2, ring": ({"context": 2}, RING),
    "2 processes, stage 2": ({"stage": 2}, STAGES),
    "4 processes, data 2, context 2, ring": ({"data": 2, "context": 2}, RING),
    "4 processes, stage 2, fsdp 2": ({"stage": 2, "fsdp": 2}, STAGES),
}


def work(name: str, folder: str, coordinator: str, process_id: int) -> None:
    """One process of a run."""
    sizes, changes = RUNS[name]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    if sizes:
        num_processes = int(np.prod([*sizes.values()]))
        start_distributed(coordinator=coordinator, process_id=process_id, num_processes=num_processes)
    layers = {"layer_loop": "scanned", "num_encoder_layers": 4, "num_decoder_layers": 4}
    tiny.run(
        pathlib.Path(folder, name),
        tiny.pipeline(pathlib.Path(folder, "data")),
        STEPS,
        eval_every=STEPS + 1,
        model=functools.partial(tiny.MODEL, **layers | changes),
        mesh=functools.partial(make_mesh, **{"data": 1} | sizes),
        axis_rules=AxisRules(key_length="context"),
    )


def losses(name: str, folder: str) -> np.ndarray:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.mesh_processes", "--work", name, folder, coordinator]
    num_processes = int(np.prod([*RUNS[name][0].values()]))
    processes = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.DEVNULL) for number in range(num_processes)
    ]
    if any([process.wait() for process in processes]):
        raise RuntimeError(f"{name}: a process failed; run it with --work to see why")
    rows = [json.loads(line) for line in pathlib.Path(folder, name, "metrics.jsonl").read_text().splitlines()]
    return np.array([row["loss"] for row in rows if "loss" in row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="append the table to this file")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        *texts, process_id = arguments.work
        return work(*texts, int(process_id))
    rows, expected = [], None
    with tempfile.TemporaryDirectory() as folder:
        (data := pathlib.Path(folder, "data")).mkdir()
        tiny.write_data(data)
        for name in RUNS:
            found = losses(name, folder)
            expected = found if expected is None else expected
            rows.append([name, f"{found[0]:.6f}", f"{found[-1]:.6f}", f"{np.abs(found / expected - 1).max():.1e}"])
            print(rows[-1], flush=True)
    made = record.table(["run", "loss of the first step", "of the last", "largest relative difference"], rows)
    record.publish(f"{record.provenance(['jax', 'flax', 'optax'])}\n\n{made}", arguments.output)


if __name__ == "__main__":
    main()
