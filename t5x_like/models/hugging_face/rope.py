"""Rotary positions in a config.json: `rope_parameters`, and what they were called before, to our bindings and back."""

from collections.abc import Mapping
from typing import Any

from t5x_like.models.rotary import Rotary

DEFAULT_THETA = 10_000.0


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """theta and type of rotary positions, as config.json says them today (rope_parameters) or said them before."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", DEFAULT_THETA))
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    return rope


def rotary_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Wavelength and scaling.

    Dynamic NTK and LongRoPE change with the length of a text there, and are set for the longest text of a run here: as
    imported they read what the model was first trained on. For longer texts bind `dynamic_ntk_scaling.length` or
    `longrope_scaling.length`.
    """
    rope = rope_of(config)
    bindings = {"Rotary.wavelength": float(rope["rope_theta"])}
    if rope["rope_type"] == "default":
        return bindings
    if rope["rope_type"] not in SCALINGS:
        known = ", ".join(map(repr, ["default", *SCALINGS]))
        raise ValueError(f"config.json says rope_type {rope['rope_type']!r}; {known} can be imported")
    name, arguments = SCALINGS[rope["rope_type"]]
    told = {f"{name}.{argument}": value for argument, value in arguments(rope, config).items()}
    return bindings | {"Rotary.scaling": f"@{name}"} | told


def rope_parameters(rotary: Rotary) -> dict[str, Any]:
    """The inverse of `rotary_bindings`."""
    if rotary.rope is None:
        raise ValueError("the scaling of these rotary positions has no name in transformers' rope_parameters")
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in rotary.rope}
    return {"rope_theta": rotary.wavelength, **lists}


def max_positions(rotary: Rotary) -> int:
    """Nothing here has a limit, and transformers only warns beyond it; but its dynamic NTK begins there."""
    rope = dict(rotary.rope or ())
    return rope["original_max_position_embeddings"] if rope.get("rope_type") == "dynamic" else 131_072


# rope_type -> the scaling, and its arguments from (rope_parameters, config.json)


def linear(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return {"factor": float(rope["factor"])}


def llama3(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return linear(rope, config) | {
        "low_frequency_factor": float(rope["low_freq_factor"]),
        "high_frequency_factor": float(rope["high_freq_factor"]),
        "original_length": int(rope["original_max_position_embeddings"]),
    }


def original_length(rope: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    found = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    return int(found or config["max_position_embeddings"])


def dynamic(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    first = original_length(rope, config)
    return linear(rope, config) | {"original_length": first, "length": first}


def yarn(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    if rope.get("mscale") or rope.get("mscale_all_dim"):
        raise ValueError("config.json says mscale of YaRN (DeepSeek); say its attention_factor in rope_parameters")
    return linear(rope, config) | {
        "original_length": original_length(rope, config),
        "beta_fast": float(rope.get("beta_fast") or 32.0),
        "beta_slow": float(rope.get("beta_slow") or 1.0),
        "truncate": bool(rope.get("truncate", True)),
        "attention_factor": rope.get("attention_factor"),
    }


def longrope(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    first = original_length(rope, config)
    factor = rope.get("factor") or config["max_position_embeddings"] / first
    return {
        "factor": float(factor),
        "original_length": first,
        "length": first,
        "short_factors": list(map(float, rope["short_factor"])),
        "long_factors": list(map(float, rope["long_factor"])),
        "attention_factor": rope.get("attention_factor"),
    }


SCALINGS = {
    "linear": ("position_interpolation", linear),
    "llama3": ("llama3_scaling", llama3),
    "dynamic": ("dynamic_ntk_scaling", dynamic),
    "yarn": ("yarn_scaling", yarn),
    "longrope": ("longrope_scaling", longrope),
}
