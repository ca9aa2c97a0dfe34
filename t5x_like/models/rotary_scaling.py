"""Rotary frequencies for texts longer than those a model was trained on.

A scaling is a function `scaling(frequencies, wavelength=) -> Scaled`, given to `Rotary` with its own arguments bound:

  position_interpolation   every pair turns slower by the same factor        Gemma 3 (its global layers), PI
  ntk_scaling              a longer wavelength: fast pairs as before, slow ones interpolated
  dynamic_ntk_scaling      the same, as far as the length of a text asks for it
  yarn_scaling             fast pairs as before, slow ones interpolated, a ramp between; sharper attention
  llama3_scaling           the same with another ramp                        Llama 3.1
  longrope_scaling         a factor found by search for every pair           Phi-3

The two that depend on the length of a text (dynamic NTK, LongRoPE) take the length of the longest text of a run as an
argument, where other code takes the highest position of the current batch. So the frequencies are constants of the
run: a document reads the same whatever rows stand beside it or are packed with it, and keys that wait in a cache were
turned by the frequencies that later queries are turned by. A run on other lengths binds another length.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Scaled(NamedTuple):
    """New radians per position of each pair, [R/2], and what multiplies sin and cos, in queries and keys alike.

    rope   the same in the words of `rope_parameters` of transformers, for export; None: it cannot be exported
    """

    frequencies: np.ndarray
    attention_factor: float
    rope: dict[str, str | float | tuple[float, ...]] | None = None


def position_interpolation(frequencies: np.ndarray, *, wavelength: float, factor: float) -> Scaled:
    """Positions divided by `factor` (arXiv:2306.15595, section 2.2); Gemma 3 has 8 (arXiv:2503.19786, section 2)."""
    check_factor(factor)
    return Scaled(frequencies / factor, 1.0, {"rope_type": "linear", "factor": factor})


def ntk_scaling(frequencies: np.ndarray, *, wavelength: float, factor: float) -> Scaled:
    """Wavelength times factor ** (R / (R - 2)): the slowest pair is interpolated fully, the fastest not at all.

    Known as "NTK-aware" (arXiv:2309.00071, section 3.1).
    """
    check_factor(factor)
    return Scaled(with_wavelength(stretched(wavelength, factor, len(frequencies)), len(frequencies)), 1.0)


def dynamic_ntk_scaling(
    frequencies: np.ndarray, *, wavelength: float, factor: float, original_length: int, length: int
) -> Scaled:
    """NTK with the factor that texts of `length` tokens need: factor * length / original_length - (factor - 1).

    Up to the original length nothing changes (arXiv:2309.00071, section 3.3; with its factor of 1 here it is exactly
    length / original_length).
    """
    check_factor(factor)
    needed = factor * max(length, original_length) / original_length - (factor - 1)
    rope = {"rope_type": "dynamic", "factor": factor, "original_max_position_embeddings": original_length}
    return ntk_scaling(frequencies, wavelength=wavelength, factor=needed)._replace(rope=rope)


def yarn_scaling(
    frequencies: np.ndarray,
    *,
    wavelength: float,
    factor: float,
    original_length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    attention_factor: float | None = None,
) -> Scaled:
    """YaRN (arXiv:2309.00071, section 3.2) as in its released code.

    Pairs that turn more than `beta_fast` times within the original length keep their frequency, those that turn less
    than `beta_slow` times are interpolated. Between them the code ramps over the number of the pair, and rounds the
    ends of the ramp to whole pairs (`truncate`; gpt-oss does not); the paper ramps over the number of turns. All
    published models follow the code.

    attention_factor   None is 0.1 ln(factor) + 1; DeepSeek-V3 gives 1 and scales its logits instead
    """
    check_factor(factor)
    if not beta_fast > beta_slow > 0:
        raise ValueError(f"beta_fast {beta_fast} must be greater than beta_slow {beta_slow}, and both than 0")
    num_pairs = len(frequencies)

    def pair_that_turns(times: float) -> float:
        return num_pairs * math.log(original_length / (2 * math.pi * times)) / math.log(wavelength)

    first, last = pair_that_turns(beta_fast), pair_that_turns(beta_slow)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * num_pairs - 1)
    width = last - first or 0.001  # a ramp of no width is a step
    share = np.clip((np.arange(num_pairs, dtype=np.float32) - first) / width, 0.0, 1.0)
    rope = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original_length,
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "truncate": truncate,
        **given("attention_factor", attention_factor),
    }
    if attention_factor is None:
        attention_factor = 0.1 * math.log(factor) + 1.0
    return Scaled(frequencies / factor * share + frequencies * (1 - share), attention_factor, rope)


def llama3_scaling(
    frequencies: np.ndarray,
    *,
    wavelength: float,
    factor: float,
    original_length: int,
    low_frequency_factor: float = 1.0,
    high_frequency_factor: float = 4.0,
) -> Scaled:
    """Llama 3.1's: pairs that turn more often than `high_frequency_factor` times within the original length stay.

    Those that turn less than `low_frequency_factor` times are interpolated; between them the ramp is over the number of
    turns, as in the paper of YaRN. Llama 3.1 has factor 8 and original_length 8192, Llama 3.2 factor 32.
    """
    check_factor(factor)
    low, high = low_frequency_factor, high_frequency_factor
    if not high > low > 0:
        raise ValueError(
            f"high_frequency_factor {high} must be greater than low_frequency_factor {low}, and both than 0"
        )
    turns = original_length * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    rope = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original_length,
    }
    return Scaled(frequencies * kept + frequencies / factor * (1 - kept), 1.0, rope)


def longrope_scaling(
    frequencies: np.ndarray,
    *,
    wavelength: float,
    factor: float,
    original_length: int,
    length: int,
    short_factors: Sequence[float],
    long_factors: Sequence[float],
    attention_factor: float | None = None,
) -> Scaled:
    """LongRoPE (arXiv:2402.13753, section 3): each pair is slowed by a number of its own, one per pair in each list.

    length             of the longest text of the run: `long_factors` beyond the original length, else `short_factors`
    factor             how many times the original length the model was made for, whatever the run's length
    attention_factor   None is sqrt(1 + ln(factor) / ln(original_length))
    """
    check_factor(factor)
    chosen, name = (long_factors, "long_factors") if length > original_length else (short_factors, "short_factors")
    if len(chosen) != len(frequencies):
        raise ValueError(f"{name} has {len(chosen)} numbers: give one for each of the {len(frequencies)} turned pairs")
    rope = {
        "rope_type": "longrope",
        "factor": factor,
        "original_max_position_embeddings": original_length,
        "short_factor": tuple(short_factors),
        "long_factor": tuple(long_factors),
        **given("attention_factor", attention_factor),
    }
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original_length))
    return Scaled(frequencies / np.asarray(chosen, np.float32), attention_factor, rope)


def given(name: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {name: value}


def with_wavelength(wavelength: float, num_pairs: int) -> np.ndarray:
    """float32 [R/2]: radians per position of each pair, from 1 down to nearly 1 / wavelength."""
    return wavelength ** (-np.arange(num_pairs, dtype=np.float32) / num_pairs)


def stretched(wavelength: float, factor: float, num_pairs: int) -> float:
    if num_pairs == 1:
        raise ValueError("NTK scaling stretches the slower pairs and keeps the first: 2 dims are one pair; turn more")
    return wavelength * factor ** (num_pairs / (num_pairs - 1))


def check_factor(factor: float) -> None:
    if not factor >= 1:
        raise ValueError(f"factor {factor} would shorten the context: give how many times longer it gets, at least 1")
