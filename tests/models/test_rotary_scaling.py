import functools
import json
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.models import rotary_scaling
from t5x_like.models.rotary import Rotary
from t5x_like.models.rotary_scaling import (
    dynamic_ntk_scaling,
    llama3_scaling,
    longrope_scaling,
    ntk_scaling,
    position_interpolation,
    stretched,
    with_wavelength,
    yarn_scaling,
)

GOLDEN = json.loads(pathlib.Path("tests/golden/rotary_scalings.json").read_text())


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['scaling']}-{row['arguments']['factor']}")
def test_frequencies_are_those_of_hugging_face(row):
    scaling = getattr(rotary_scaling, row["scaling"])
    plain = with_wavelength(row["wavelength"], len(row["frequencies"]))
    found = scaling(plain, wavelength=row["wavelength"], **row["arguments"])
    np.testing.assert_allclose(found.frequencies, row["frequencies"], rtol=1e-6)
    np.testing.assert_allclose(found.attention_factor, row["attention_factor"], rtol=1e-9)


def test_yarn_of_a_llama_of_128_dims_stretched_16_times_has_the_known_numbers():
    scaled = yarn_scaling(with_wavelength(10_000.0, 64), wavelength=10_000.0, factor=16.0, original_length=4096)
    known = [0.056234130, 0.008526844, 0.00088178896, 7.2173871e-06]
    np.testing.assert_allclose(scaled.frequencies[[20, 30, 40, 63]], known, rtol=1e-6)
    np.testing.assert_allclose(scaled.attention_factor, 1.2772589, rtol=1e-7)


@pytest.mark.parametrize("factor, wavelength", [(2, 20221.26), (4, 40889.94), (8, 82684.62)])
def test_ntk_scaling_of_128_dims_has_the_known_wavelengths(factor, wavelength):
    np.testing.assert_allclose(stretched(10_000.0, factor, 64), wavelength, atol=5e-3)
    scaled = ntk_scaling(with_wavelength(10_000.0, 64), wavelength=10_000.0, factor=factor)
    np.testing.assert_allclose(scaled.frequencies, with_wavelength(stretched(10_000.0, factor, 64), 64), rtol=1e-6)


def test_ntk_scaling_keeps_the_fastest_pair_and_interpolates_the_slowest_fully():
    plain = with_wavelength(10_000.0, 64)
    ratio = plain / ntk_scaling(plain, wavelength=10_000.0, factor=8.0).frequencies
    np.testing.assert_allclose(ratio[[0, -1]], [1.0, 8.0], rtol=1e-5)
    assert np.all(np.diff(ratio) > 0)


def test_dynamic_ntk_changes_nothing_up_to_the_original_length_and_stretches_by_need_beyond():
    plain = with_wavelength(10_000.0, 16)
    at = functools.partial(dynamic_ntk_scaling, plain, wavelength=10_000.0, factor=1.0, original_length=100)
    np.testing.assert_array_equal(at(length=100).frequencies, plain)
    expected = ntk_scaling(plain, wavelength=10_000.0, factor=3.0).frequencies
    np.testing.assert_allclose(at(length=300).frequencies, expected, rtol=1e-6)


def test_yarn_and_llama3_keep_fast_pairs_and_interpolate_slow_ones():
    plain = with_wavelength(10_000.0, 32)
    for scaling in (yarn_scaling, llama3_scaling):
        ratio = plain / scaling(plain, wavelength=10_000.0, factor=4.0, original_length=4096).frequencies
        np.testing.assert_allclose(ratio[[0, -1]], [1.0, 4.0], rtol=1e-6)
        assert np.all(np.diff(ratio) > -1e-6)


def test_a_scaled_rotation_is_the_plain_one_at_other_places_times_the_attention_factor():
    places = jnp.arange(6)[None, :, None]
    slow = Rotary(8, scaling=functools.partial(position_interpolation, factor=2.0))
    for scaled, plain in zip(slow(places * 2), Rotary(8)(places), strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-6)
    sharp = Rotary(8, scaling=functools.partial(yarn_scaling, factor=8.0, original_length=64))
    sin, cos = sharp(places)
    np.testing.assert_allclose(sin**2 + cos**2, np.full(sin.shape, (0.1 * math.log(8) + 1) ** 2), rtol=1e-6)


def test_without_a_scaling_the_frequencies_are_the_papers():
    np.testing.assert_allclose(Rotary(8).frequencies, 10_000.0 ** -np.array([0, 0.25, 0.5, 0.75]), rtol=1e-6)


LONGROPE = {"original_length": 8, "length": 9, "short_factors": [1.0] * 4, "long_factors": [1.0] * 3}


@pytest.mark.parametrize(
    "scaling, message",
    [
        (functools.partial(position_interpolation, factor=0.5), "factor 0.5 would shorten the context"),
        (functools.partial(ntk_scaling, factor=float("nan")), "factor nan would shorten the context"),
        (
            functools.partial(yarn_scaling, factor=2.0, original_length=8, beta_fast=1.0),
            "beta_fast 1.0 must be greater",
        ),
        (
            functools.partial(llama3_scaling, factor=2.0, original_length=8, high_frequency_factor=0.5),
            "high_frequency_factor 0.5 must be greater than low_frequency_factor 1.0",
        ),
        (
            functools.partial(longrope_scaling, factor=2.0, **LONGROPE),
            "long_factors has 3 numbers: give one for each of",
        ),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused_when_the_model_is_made(scaling, message):
    with pytest.raises(ValueError, match=message):
        Rotary(8, scaling=scaling)


def test_ntk_scaling_of_one_pair_is_refused():
    with pytest.raises(ValueError, match="2 dims are one pair"):
        Rotary(2, scaling=functools.partial(ntk_scaling, factor=2.0))
