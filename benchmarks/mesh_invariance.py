"""The same run on several meshes and in micro-batches: how far do its losses part?

  python benchmarks/mesh_invariance.py --directory shakespeare --steps 50 --output docs/results.md

Each run is the command line with 8 simulated devices; the reference is one device, one micro-batch.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

BATCH = 24  # 8 devices, or 4 micro-batches

RUNS = {
    "1 device": ["make_mesh.data=1", "--num_cpu_devices=1"],
    "data 8": ["make_mesh.data=8"],
    "fsdp 8": ["make_mesh.data=1", "make_mesh.fsdp=8"],
    "data 2, fsdp 2, tensor 2": ["make_mesh.data=2", "make_mesh.fsdp=2", "make_mesh.tensor=2"],
    "1 device, 4 micro-batches": ["make_mesh.data=1", "--num_cpu_devices=1", "train.num_microbatches=4"],
}


def losses(arguments: argparse.Namespace, settings: list[str], folder: pathlib.Path) -> list[float]:
    devices = [] if any(setting.startswith("--num_cpu") for setting in settings) else ["--num_cpu_devices=8"]
    command = [sys.executable, "-m", "t5x_like", "train", "--gin_file=configs/runs/shakespeare_char.gin"]
    command += [f"Pipeline.directory={arguments.directory}", f"Pipeline.batch_size={BATCH}", f"model_dir={folder}"]
    command += ["train.mesh=@make_mesh", f"steps={arguments.steps}", "train.eval_every=100000", *settings, *devices]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True, help="where shakespeare_causal_lm was prepared")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=pathlib.Path, help="append the table to this file")
    arguments = parser.parse_args()
    lines = ["| run | loss of the first step | of the last | largest relative difference |", "|---|---|---|---|"]
    reference = None
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, settings) in enumerate(RUNS.items()):
            values = losses(arguments, settings, pathlib.Path(folder, str(number)))
            reference = reference or values
            difference = max(abs(a - b) / b for a, b in zip(values, reference, strict=True))
            lines.append(f"| {name} | {values[0]:.6f} | {values[-1]:.6f} | {difference:.1e} |")
            print(lines[-1], flush=True)
    if arguments.output:
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *lines, ""]))


if __name__ == "__main__":
    main()
