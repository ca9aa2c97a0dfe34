"""What the TPU compiler makes of our programs, on topologies that are not here. `make test` brings libtpu for it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

LIBTPU = pathlib.Path(sys.prefix) / "libtpu"  # apart from the environment: with it installed, JAX looks for chips


def test_causal_attention_is_a_kernel_of_ours_and_holds_no_scores():
    """Forward, forward again for the gradient, and twice backward; in one test, since compiling takes half a minute."""
    if not (LIBTPU / "libtpu").is_dir():
        pytest.skip(f"no libtpu in {LIBTPU}: there is none for this machine, or `make test` did not run")
    paths = os.pathsep.join([str(pathlib.Path.cwd()), str(LIBTPU)])
    command = [sys.executable, "-m", "tests.planning.tpu_programs"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=600)
    assert done.returncode == 0, done.stderr
    slices, programs = map(json.loads, done.stdout.splitlines()[-2:])
    assert slices == [[0, 1], [0, 1]]  # data crosses the slices, before stage
    assert {name: program["kernels"] for name, program in programs.items()} == {
        "v5e, fsdp 4, tensor 2": 4,
        "v5e, any order": 0,
    }
    # The scores of a layer, 2 rows of 4 heads a chip, would be 8 MiB in float32.
    # Each layer's matrices are gathered for the forward pass and again for the backward one; their gradients are
    # summed once, in bfloat16 or float32. Where a flat matrix is gathered beside one of heads it is 2.46 times.
    parts = 2
    for name, most in {"v5e, fsdp 4, tensor 2": 2.2, "v5e, any order": 2.4}.items():
        told = programs[name]
        assert 2 * told["matrices"] / parts <= told["gathered"] <= most * told["matrices"] / parts
        assert told["matrices"] / parts <= told["summed"] <= 3 * told["matrices"] / parts
    saved = programs["v5e, any order"]["temporaries"] - programs["v5e, fsdp 4, tensor 2"]["temporaries"]
    assert saved > 0
