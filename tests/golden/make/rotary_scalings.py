"""Writes tests/golden/rotary_scalings.json: `python -m tests.golden.make.rotary_scalings`, with torch and transformers.

The frequencies are those of transformers.modeling_rope_utils (the stored ones: version 5.24.0 on CPU). A row names the
scaling of ours that must give them, its arguments, and the wavelength; the number of pairs is that of the values.
"""

import json
import pathlib

import torch  # noqa: F401  what transformers computes with
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

GOLDEN = pathlib.Path("tests/golden/rotary_scalings.json")
SHORT, LONG = [1.0 + 0.05 * i for i in range(8)], [1.0 + 1.5 * i for i in range(8)]
LONGROPE = {"factor": 32.0, "original_length": 4096, "short_factors": SHORT, "long_factors": LONG}
LLAMA3 = {"original_length": 8192, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0}

# our scaling, theirs, arguments of ours, wavelength, dims of a head
ROWS = [
    ("position_interpolation", "linear", {"factor": 8.0}, 1_000_000.0, 16),
    ("dynamic_ntk_scaling", "dynamic", {"factor": 2.0, "original_length": 2048, "length": 1000}, 10_000.0, 16),
    ("dynamic_ntk_scaling", "dynamic", {"factor": 2.0, "original_length": 2048, "length": 8192}, 10_000.0, 16),
    ("yarn_scaling", "yarn", {"factor": 16.0, "original_length": 4096}, 10_000.0, 32),
    ("yarn_scaling", "yarn", {"factor": 32.0, "original_length": 4096, "truncate": False}, 150_000.0, 32),
    (
        "yarn_scaling",
        "yarn",
        {"factor": 4.0, "original_length": 32768, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.0},
        1_000_000.0,
        32,
    ),
    ("llama3_scaling", "llama3", {"factor": 8.0, **LLAMA3}, 500_000.0, 32),
    ("llama3_scaling", "llama3", {"factor": 32.0, **LLAMA3}, 500_000.0, 32),
    ("longrope_scaling", "longrope", {**LONGROPE, "length": 4096}, 10_000.0, 16),
    ("longrope_scaling", "longrope", {**LONGROPE, "length": 4097}, 10_000.0, 16),
]
THEIR_NAMES = {
    "original_length": "original_max_position_embeddings",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "short_factors": "short_factor",
    "long_factors": "long_factor",
}


def theirs(kind: str, arguments: dict, wavelength: float, head_dim: int) -> tuple[list[float], float]:
    settings = {THEIR_NAMES.get(name, name): value for name, value in arguments.items() if name != "length"}
    length = arguments.get("length")
    config = LlamaConfig(
        head_dim=head_dim,
        max_position_embeddings=arguments.get("original_length", 2048),
        rope_parameters={"rope_type": kind, "rope_theta": wavelength, **settings},
    )
    frequencies, attention_factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    return frequencies.tolist(), float(attention_factor)


def main() -> None:
    rows = []
    for ours, kind, arguments, wavelength, head_dim in ROWS:
        frequencies, attention_factor = theirs(kind, arguments, wavelength, head_dim)
        row = {"scaling": ours, "arguments": arguments, "wavelength": wavelength, "attention_factor": attention_factor}
        rows.append(json.dumps(row | {"frequencies": [float(f"{value:.8g}") for value in frequencies]}))
    GOLDEN.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(GOLDEN)


if __name__ == "__main__":
    main()
