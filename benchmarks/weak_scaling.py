"""Llama 2 7B on 16 to 4,096 v5p chips, 2 rows of 2,048 a chip: what each chip holds and sends, from compiled programs.

  python -m benchmarks.weak_scaling --plot docs/weak_scaling.png --output docs/results.md

Needs libtpu, as tpu_programs.py does; half a minute to two a program. Bytes sent are those of whole arrays in the
collectives that a chip takes part in, by token: of all tokens of a step over the chips. The loss is not in chunks.
"""

import argparse
import sys

from benchmarks import record, tpu_programs

TOPOLOGIES = {16: "v5p:2x2x4", 64: "v5p:4x4x4", 256: "v5p:4x8x8", 1024: "v5p:8x8x16", 4096: "v5p:16x16x16"}
MESHES = {  # what a chip's mesh is, by the number of chips
    "fsdp": {"fsdp": "-1"},
    "fsdp in groups of 64, data": {"fsdp": "64", "data": "-1"},
    "tensor 8, fsdp": {"fsdp": "-1", "tensor": "8"},
}
TOKENS = 2 * 2048  # of a chip


def program(mesh: str, chips: int) -> tpu_programs.Program:
    axes = dict(MESHES[mesh])
    if axes["fsdp"] != "-1" and int(axes["fsdp"]) > chips:
        axes["fsdp"] = str(chips)
    lines = "".join(f"make_mesh.{axis} = {size}\n" for axis, size in axes.items())
    lines = f"{tpu_programs.LLAMA_7B}{lines}train.loss = @CrossEntropy()\nPipeline.batch_size = {2 * chips}\n"
    return tpu_programs.Program(TOPOLOGIES[chips], tpu_programs.LLAMA_7B_FILES, lines)


def plot(told: dict[tuple[str, int], dict], path: str) -> None:
    """Left: GB of a chip; right: MB sent by token."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for mesh, color in zip(MESHES, ("C0", "C1", "C2"), strict=True):
        chips = sorted(count for name, count in told if name == mesh)
        held = [told[mesh, count]["arguments"] / 1e9 for count in chips]
        together = [size + told[mesh, n]["temporaries"] / 1e9 for size, n in zip(held, chips, strict=True)]
        left.plot(chips, together, "o-", color=color, label=mesh)
        left.plot(chips, held, "o:", color=color, mfc="white")
        sent = [sum(told[mesh, count]["sent"].values()) / TOKENS / 1e6 for count in chips]
        right.plot(chips, sent, "o-", color=color, label=mesh)
    left.plot([], [], "o:", color="0.4", mfc="white", label="of which parameters, optimizer, rows")
    for axes, label in ((left, "GB a chip"), (right, "MB sent by token")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(TOPOLOGIES), [f"{count:,}" for count in TOPOLOGIES])
        axes.set(xlabel="v5p chips", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="lower left")
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, nargs="*", default=list(TOPOLOGIES), choices=list(TOPOLOGIES))
    parser.add_argument("--meshes", nargs="*", default=list(MESHES), choices=list(MESHES), metavar="NAME")
    parser.add_argument("--python", default=sys.executable, help="compiles the programs: another environment's")
    parser.add_argument("--plot", help="PNG file of the curves")
    parser.add_argument("--output", help="append the table to this file")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        mesh, chips = options.work
        return tpu_programs.ours(program(mesh, int(chips)))
    told, rows = {}, []
    for chips in options.chips:
        for mesh in options.meshes:
            found = told[mesh, chips] = tpu_programs.told_by(
                options.python, "benchmarks.weak_scaling", mesh, str(chips)
            )
            sizes = [found["arguments"], found["temporaries"]]
            sent = [size / TOKENS for size in (found["sent"].get("all-gather", 0), sum(found["sent"].values()))]
            row = [
                f"{chips:,}",
                mesh,
                *(f"{size / 1e9:.3f}" for size in sizes),
                *(f"{size / 1e6:.2f}" for size in sent),
            ]
            rows.append([*row, f"{found['seconds']:.0f}"])
            print(rows[-1], flush=True)
    header = ["chips", "mesh", "GB of arguments", "of temporaries", "MB gathered a token", "sent", "compiled in s"]
    text = f"{record.provenance(['flax'])}, {found['compiler']}\n\n{record.table(header, rows)}"
    record.publish(text, options.output)
    if options.plot:
        plot(told, options.plot)


if __name__ == "__main__":
    main()
