"""Steps of large models compiled for TPUs that are not here: bytes a device, what is sent, seconds to compile.

  python -m benchmarks.tpu_programs --output docs/results.md
  python -m benchmarks.tpu_programs --python MAXTEXT/bin/python --maxtext   # both by the compiler that is there

Needs libtpu on PYTHONPATH or in the environment of --python. Several minutes a program, each in a process of its own:
libtpu takes over signals. What a compiler plans differs from version to version, so only figures of one run compare.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

from benchmarks import record


class Program(NamedTuple):
    """The chips, a configuration (files, then lines), and what MaxText is told for the same shapes."""

    topology: str
    files: tuple[str, ...]
    lines: str
    maxtext: tuple[str, ...] = ()
    num_slices: int = 1


BEFORE = """
include 'optimizers/adamw.gin'
train.eval_every = 1000
train.save_every = 1000
train.data = @Pipeline()
train.loss = @BlockwiseCrossEntropy()
warmup_cosine.total_steps = 1000
Attention.kernel = @auto
"""
DECODER = f"""{BEFORE}Pipeline.render = @decoder_only
Decoder.remat = @save_nothing
auto.order = 'causal'
"""
LLAMA_7B_FILES = "models/llama_7b.gin", "meshes/fsdp.gin"
LLAMA_7B = f"""{DECODER}Pipeline.lengths = {{'targets': 2048}}
Pipeline.batch_size = 512
"""
T5_XXL_FILES = "models/t5_1_1_xxl.gin", "meshes/fsdp.gin"
T5_XXL = f"""{BEFORE}Pipeline.render = @encoder_decoder
EncoderDecoder.remat = @save_nothing
Pipeline.lengths = {{'inputs': 512, 'targets': 114}}
Pipeline.batch_size = 1024
"""
LLAMA_70B_FILES = "models/llama2_70b.gin", "meshes/fsdp.gin"
LLAMA_70B = f"""{DECODER}Pipeline.lengths = {{'targets': 4096}}
Pipeline.batch_size = 1024
"""
LLAMA_8B_FILES = "models/llama3_8b.gin", "meshes/fsdp.gin"
LLAMA_8B = f"""{DECODER}Pipeline.lengths = {{'targets': 8192}}
Pipeline.batch_size = 512
"""
LONG_ROWS_FILES = "models/llama3_8b.gin", "meshes/ring.gin"
LONG_ROWS = f"""{DECODER}Attention.kernel = @balanced_ring
make_mesh.fsdp = 16
AxisRules.embed = ('fsdp', 'context')
Pipeline.lengths = {{'targets': 131072}}
Pipeline.batch_size = 16
"""
EXPERTS_FILES = "models/mixtral_8x7b.gin", "meshes/expert.gin"
EXPERTS = f"""{DECODER}make_mesh.fsdp = 32
MixtureOfExperts.dispatch = @with_capacity
Pipeline.lengths = {{'targets': 2048}}
Pipeline.batch_size = 512
"""
SLICES_FILES = "models/llama_7b.gin", "meshes/pipeline_1f1b.gin"
SLICES = f"""{DECODER}train.num_microbatches = 8
make_mesh.data = 1
make_mesh.fsdp = 64
Decoder.layer_loop = @pipelined()
Pipeline.lengths = {{'targets': 2048}}
Pipeline.batch_size = 512
"""
ROUNDS_FILES = "models/llama_7b.gin", "meshes/pipeline.gin"
ROUNDS = f"""{DECODER}make_mesh.data = 1
make_mesh.fsdp = 64
Decoder.layer_loop = @pipelined()
pipelined.num_microbatches = 8
pipelined.num_rounds = 8
Pipeline.lengths = {{'targets': 2048}}
Pipeline.batch_size = 512
"""


def told_to_maxtext(topology: str, model: str, length: int, *more: str) -> tuple[str, ...]:
    """The same shapes; `more` may say again what stands before it."""
    default = {"remat_policy": "full", "attention": "flash", "compile_topology_num_slices": 1}
    default |= {"per_device_batch_size": 2, "compile_topology": topology, "model_name": model}
    default |= {"max_target_length": length, "allow_split_physical_axes": True} | dict(one.split("=") for one in more)
    return tuple(f"{name}={value}" for name, value in default.items())


LONG_MAXTEXT = "per_device_batch_size=0.0625", "ici_context_parallelism=16", "ici_fsdp_parallelism=16"
EXPERTS_MAXTEXT = (
    "ici_expert_parallelism=8",
    "ici_fsdp_parallelism=32",
    "sparse_matmul=False",
    "capacity_factor=1.25",
)
SLICES_MAXTEXT = (
    "compile_topology_num_slices=4",
    "dcn_pipeline_parallelism=4",
    "num_pipeline_microbatches=8",
    "ici_fsdp_parallelism=64",
)
PROGRAMS = {
    "Llama 2 7B, 2 x 2,048 a chip": Program(
        "v5e:16x16", LLAMA_7B_FILES, LLAMA_7B, told_to_maxtext("v5e-256", "llama2-7b", 2048)
    ),
    "the same, the loss in chunks of rows": Program(
        "v5e:16x16", LLAMA_7B_FILES, LLAMA_7B + "train.loss = @ChunkedCrossEntropy()\n"
    ),
    "T5 1.1 XXL, 4 x (512 + 114) a chip": Program("v5e:16x16", T5_XXL_FILES, T5_XXL),
    "Llama 2 70B, 2 x 4,096 a chip": Program(
        "v5p:8x8x8", LLAMA_70B_FILES, LLAMA_70B, told_to_maxtext("v5p-1024", "llama2-70b", 4096)
    ),
    "Llama 3 8B, 2 x 8,192 a chip": Program(
        "v6e:16x16", LLAMA_8B_FILES, LLAMA_8B, told_to_maxtext("v6e-256", "llama3.1-8b", 8192)
    ),
    "Llama 3 8B, a row of 131,072 on 16 chips": Program(
        "v5p:4x8x8", LONG_ROWS_FILES, LONG_ROWS, told_to_maxtext("v5p-512", "llama3.1-8b", 131072, *LONG_MAXTEXT)
    ),
    "Mixtral 8x7B, 2 x 2,048 a chip": Program(
        "v5e:16x16", EXPERTS_FILES, EXPERTS, told_to_maxtext("v5e-256", "mixtral-8x7b", 2048, *EXPERTS_MAXTEXT)
    ),
    "Llama 2 7B in stages on 4 slices, 8 rounds": Program(
        "v5e:8x8", ROUNDS_FILES, ROUNDS, told_to_maxtext("v5e-64", "llama2-7b", 2048, *SLICES_MAXTEXT), num_slices=4
    ),
    "the same by 1F1B": Program("v5e:8x8", SLICES_FILES, SLICES, num_slices=4),
}


def ours(program: Program) -> None:
    from t5x_like.commands.plan import run_of
    from t5x_like.planning import plan

    with tempfile.TemporaryDirectory() as folder:
        (config := pathlib.Path(folder, "run.gin")).write_text(program.lines)
        run = run_of(argparse.Namespace(gin_file=[*program.files, str(config)], overrides=[], gin_search_paths=""))
    report = plan.plan(run, plan.topology_devices(program.topology, program.num_slices))
    tell(report.arguments, report.temporaries, report.compile_seconds, report.collectives)


def maxtext(program: Program) -> None:
    """Its own command; the one program that it compiles is read on the way."""
    import time

    import jax
    import maxtext
    import numpy as np
    from absl import app
    from maxtext.trainers.pre_train import train_compile

    from t5x_like.planning import plan
    from t5x_like.planning.collectives import collectives_of

    compile_it = jax.stages.Lowered.compile

    def compiled_and_told(lowered, *arguments, **named):
        began = time.monotonic()
        compiled = compile_it(lowered, *arguments, **named)
        seconds, memory = time.monotonic() - began, compiled.memory_analysis()
        mesh = jax.sharding.Mesh(np.array(plan.topology_devices(program.topology, program.num_slices)), ("all",))
        found = collectives_of(compiled.as_text(), mesh)
        tell(memory.argument_size_in_bytes, memory.temp_size_in_bytes, seconds, found)
        return compiled

    jax.stages.Lowered.compile = compiled_and_told
    base = pathlib.Path(maxtext.__file__).parent / "configs" / "base.yml"
    app.run(train_compile.main, [sys.argv[0], str(base), "run_name=plan", *program.maxtext])


def tell(arguments: int, temporaries: int, seconds: float, collectives: list) -> None:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu")]
    sent = {}
    for one in collectives:
        sent[one.kind] = sent.get(one.kind, 0) + one.bytes * one.times
    told = {
        "arguments": arguments,
        "temporaries": temporaries,
        "seconds": seconds,
        "sent": sent,
        "compiler": ", ".join(versions),
    }
    print("TOLD " + json.dumps(told), flush=True)


def told_by(python: str, module: str, *arguments: str) -> dict:
    """What the largest program tells that `module --work ...` compiles, in a process of its own."""
    path = os.pathsep.join([str(record.ROOT), os.environ.get("PYTHONPATH", "")])
    changed = os.environ | {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "PYTHONPATH": path}
    changed |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # beside another process that compiles
    done = subprocess.run([python, "-m", module, "--work", *arguments], capture_output=True, text=True, env=changed)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    if not lines:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return max((json.loads(line[5:]) for line in lines), key=lambda told: told["arguments"])


def row(python: str, name: str, whose: str) -> list[str]:
    told = told_by(python, "benchmarks.tpu_programs", whose, name)
    sums = [told["sent"].get(kind, 0) for kind in ("all-gather", "all-reduce")]
    sums = [told["arguments"], told["temporaries"], *sums, sum(told["sent"].values()) - sum(sums)]
    slices = f"{PROGRAMS[name].num_slices} x " if PROGRAMS[name].num_slices > 1 else ""
    return [
        name,
        slices + PROGRAMS[name].topology,
        whose,
        *(f"{size / 1e9:.3f}" for size in sums),
        f"{told['seconds']:.0f}",
        told["compiler"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS), metavar="NAME")
    parser.add_argument("--python", default=sys.executable, help="compiles the programs: another environment's")
    parser.add_argument(
        "--maxtext", action="store_true", help="MaxText's too, where it has the shapes (needs --python)"
    )
    parser.add_argument("--output", help="append the table to this file")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        whose, name = options.work
        return {"ours": ours, "MaxText": maxtext}[whose](PROGRAMS[name])
    rows = []
    for name in options.only:
        for whose in ["ours", *(["MaxText"] if options.maxtext and PROGRAMS[name].maxtext else [])]:
            rows.append(row(options.python, name, whose))
            print(rows[-1], flush=True)
    header = [
        "GB a device",
        "chips",
        "whose",
        "arguments",
        "temporaries",
        "gathered",
        "reduced",
        "else",
        "compiled in s",
        "by",
    ]
    record.publish(f"{record.provenance(['flax'])}\n\n{record.table(header, rows)}", options.output)


if __name__ == "__main__":
    main()
