"""Thermal and shot noise: two limits of one formula, nothing counted twice."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from substrates.memristor.floor import (
    column_variance,
    current_psd,
    density_per_siemens,
    read_bandwidth_hz,
    variance,
)
from twin.errors import ConfigError, DialError, DriveError, SettingError
from twin.key import Key

K, Q = constants.k, constants.e
fanos = st.floats(0, 1)
kelvins = st.floats(2, 900)
siemens = st.floats(1e-7, 1e-3)


def psd(g: float, volts: float, kelvin: float, fano: float) -> float:
    pair = torch.tensor([g, volts], dtype=torch.float64)
    return float(current_psd(pair[0], pair[1], kelvin, fano))


@settings(max_examples=60)
@given(g=siemens, kelvin=kelvins, fano=fanos)
def test_a_cell_at_rest_has_thermal_noise_whatever_its_fano_factor(g, kelvin, fano):
    assert psd(g, 0.0, kelvin, fano) == pytest.approx(4 * K * kelvin * g, rel=1e-14)
    # Continuous at rest: the first correction is F x^2 / 3 with x = qV / 2kT.
    volts = 1e-3 * 2 * K * kelvin / Q
    corrected = 4 * K * kelvin * g * (1 + fano * 1e-6 / 3)
    assert psd(g, volts, kelvin, fano) == pytest.approx(corrected, rel=1e-12)


@settings(max_examples=60)
@given(g=siemens, kelvin=st.floats(2, 250), fano=fanos, volts=st.floats(0.9, 1.0))
def test_a_strongly_driven_cell_has_shot_noise_and_the_thermal_rest(g, kelvin, fano, volts):
    # qV / 2kT is above 20 here, where coth differs from 1 by less than a double shows.
    law = 4 * K * kelvin * g * (1 - fano) + 2 * Q * g * volts * fano
    assert psd(g, volts, kelvin, fano) == pytest.approx(law, rel=1e-14)


@settings(max_examples=60)
@given(g=siemens, kelvin=kelvins, volts=st.floats(1e-4, 1))
def test_a_tunnel_contact_has_the_coth_law_and_not_a_sum_of_both_noises(g, kelvin, volts):
    x = Q * volts / (2 * K * kelvin)
    law = 2 * Q * g * volts / math.tanh(x)
    assert psd(g, volts, kelvin, 1.0) == pytest.approx(law, rel=1e-13)
    thermal, shot = 4 * K * kelvin * g, 2 * Q * g * volts
    assert max(thermal, shot) <= law * (1 + 1e-13)
    assert law < thermal + shot


@settings(max_examples=60)
@given(g=siemens, kelvin=kelvins, fano=fanos, volts=st.floats(-1, 1))
def test_noise_is_even_in_the_voltage_and_never_below_thermal(g, kelvin, fano, volts):
    here = psd(g, volts, kelvin, fano)
    assert here == psd(g, -volts, kelvin, fano)
    assert here >= 4 * K * kelvin * g * (1 - 1e-14)


def test_a_cell_of_23_microsiemens_at_a_fifth_of_a_volt():
    """0.62 nA thermal, 1.22 nA shot in 1 MHz at 300 K; 0.026 % of 4.68 uA for F = 1."""
    g, volts = torch.tensor(23.4e-6, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    thermal = float(variance(g, 0 * volts, 300.0, 0.4, 1e6).sqrt())
    wire = float(variance(g, volts, 300.0, 0.0, 1e6).sqrt())
    tunnel = float(variance(g, volts, 300.0, 1.0, 1e6).sqrt())
    assert thermal == pytest.approx(0.6226e-9, rel=1e-4)
    assert wire == pytest.approx(thermal, rel=1e-14)
    assert tunnel == pytest.approx(1.2248e-9, rel=1e-4)
    # coth(3.87) is 1.0009: almost all shot.
    assert tunnel == pytest.approx(math.sqrt(2 * Q * 23.4e-6 * 0.2 * 1e6), rel=1e-3)
    assert tunnel / 4.68e-6 == pytest.approx(2.617e-4, rel=1e-3)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), fano=fanos, batch=st.integers(1, 4), rows=st.integers(1, 9))
def test_a_columns_variance_is_the_sum_over_its_cells(seed, fano, batch, rows):
    generator = Key(seed).torch()
    g = torch.rand((rows, 3), generator=generator) * 4e-5
    volts = torch.rand((batch, rows), generator=generator) * 0.4 - 0.2
    fast = column_variance(g, volts, 300.0, fano, 1e6)
    slow = variance(g.double(), volts.double()[:, :, None], 300.0, fano, 1e6).sum(1)
    assert fast.dtype == torch.float32 and fast.shape == (batch, 3)
    assert torch.allclose(fast.double(), slow, rtol=1e-5, atol=0)


def test_single_precision_keeps_the_density_at_the_smallest_voltages():
    volts = torch.logspace(-20, 0, 400)
    single = density_per_siemens(volts, 300.0, 1.0).double()
    assert torch.allclose(single, density_per_siemens(volts.double(), 300.0, 1.0), rtol=1e-6)
    assert (single > 0).all()


def test_an_average_over_a_microsecond_has_half_a_megahertz():
    assert read_bandwidth_hz(1e-6) == 5e5


def test_the_bandwidth_is_that_of_an_average_of_white_noise():
    """White noise of density S sampled at rate r has variance S r / 2."""
    n, samples, rate, density = 20_000, 16, 1e9, 3e-20
    white = torch.randn((n, samples), generator=Key(1).torch(), dtype=torch.float64)
    averages = (white * math.sqrt(density * rate / 2)).mean(1)
    expected = density * read_bandwidth_hz(samples / rate)
    assert abs(averages.square().mean() / expected - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"volts": 1.5}, DriveError, "at most 1 V, got 1.5"),
        ({"volts": math.nan}, DriveError, "got nan"),
        ({"kelvin": 25 - 25}, DialError, "1 to 1000 K"),
        ({"kelvin": math.nan}, DialError, "Celsius"),
        ({"fano": 1.2}, ConfigError, "Fano factor must be from 0"),
        ({"g": -1e-6}, SettingError, "not negative"),
        ({"g": math.inf}, SettingError, "finite"),
        ({"hertz": 0.0}, ConfigError, "bandwidth must be above 0"),
        ({"hertz": 1e12}, ConfigError, "at most 1e"),
    ],
)
def test_what_is_outside_the_range_is_refused_with_range_and_remedy(wrong, error, words):
    given_ = {"g": 1e-5, "volts": 0.1, "kelvin": 300.0, "fano": 0.5, "hertz": 1e6, **wrong}
    g, volts = torch.full((2, 2), given_["g"]), torch.full((1, 2), given_["volts"])
    with pytest.raises(error, match=words):
        variance(g, volts, given_["kelvin"], given_["fano"], given_["hertz"])
    with pytest.raises(error, match=words):
        column_variance(g, volts, given_["kelvin"], given_["fano"], given_["hertz"])


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_a_read_needs_a_time(seconds):
    with pytest.raises(ConfigError, match="positive number of seconds"):
        read_bandwidth_hz(seconds)
