"""A crossbar's converters and the noise floor under them, against their laws."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from substrates.converter import half_span
from substrates.memristor import floor
from substrates.memristor.converters import BOW
from substrates.memristor.crossbar import make
from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import amperes, code_amperes, codes, drive, turn, written
from twin.errors import ConfigError, DialError
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
MANY = {**IDEAL, "inputs": 8, "outputs": 2000}


def ramp(chip, steps: int = 2001) -> torch.Tensor:
    """One row driven from 0 to 1, (steps, 1)."""
    return chip.capabilities.drives[0].on_grid(torch.linspace(0, 1, steps)[:, None])


def one_cell(seed: int = 1, **options: object):
    """A single weight of 1 whose full drive is just inside full scale."""
    own = {**IDEAL, "inputs": 1, "outputs": 1, "adc_full_scale_a": 0.2 * 18e-6 * 1.01, **options}
    chip = make(key=Key(seed), **own)
    chip.program(torch.ones(1, 1), key=Key(2))
    return chip


# ---- quantisation ---------------------------------------------------------------


@EVERYDAY
@given(seed=seeds, bits=st.integers(2, 10), bow=st.floats(0, 1))
def test_more_drive_never_gives_a_smaller_code(seed, bits, bow):
    # A bowed line rises as long as the peak of the bow is below half / (2 BOW); five
    # sigma of the dial stay below that.
    peak = bow * half_span(bits) / (2 * BOW) / 5
    chip = one_cell(seed, adc_bits=bits)
    turn(chip, adc_inl_lsb=peak, adc_gain_spread=0.1, adc_offset_lsb=0.1)
    seen = codes(chip, ramp(chip))[:, 0]
    assert (seen.diff() >= 0).all()
    assert seen[-1] > seen[0]


def test_the_error_of_a_converter_is_uniform_over_one_code():
    chip = written(**IDEAL | {"adc_bits": 10}, inputs=60, outputs=400, array_rows=60)
    x = drive(chip, 50)
    g = chip.conductances().double()
    exact = (x.double() @ (g[0] - g[1])) * 0.2
    seen = codes(chip, x)
    inside = seen.abs() < half_span(10) - 1
    error = (amperes(chip, x) - exact)[inside] / code_amperes(chip)[0]
    n = error.numel()
    assert n > 19_000
    assert error.abs().max() <= 0.5 + 1e-3
    assert abs(error.mean()) < 5 * math.sqrt(1 / 12 / n)
    # The fourth moment of a uniform number is 1/80: variance of its square 1/180.
    assert abs(error.square().mean() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)


@EVERYDAY
@given(seed=seeds)
def test_the_largest_error_over_the_range_falls_with_every_bit(seed):
    largest = []
    for bits in range(3, 11):
        chip = one_cell(seed, adc_bits=bits, adc_full_scale_a=0.2 * 18e-6 * 4 / 3)
        x = ramp(chip)
        exact = x[:, 0].double() * 0.2 * 18e-6
        largest.append(float((amperes(chip, x)[:, 0] - exact).abs().max()))
    assert all(b < 0.6 * a for a, b in pairwise(largest))


# ---- how converters differ --------------------------------------------------------


def test_a_gain_error_is_one_factor_for_each_converter_of_the_stated_spread():
    chip = written(**MANY, adc_full_scale_a=0.2 * 18e-6 * 6)
    x = drive(chip, 4)
    before = amperes(chip, x)
    turn(chip, adc_gain_spread=0.04)
    factor = amperes(chip, x) / before
    loud = before.abs() > 2000 * code_amperes(chip)
    mean = (factor * loud).sum(0) / loud.sum(0)
    off = (factor - mean).abs() * loud
    assert off.nan_to_num().max() < 1e-3  # rounding of codes above 2000
    n = int(mean.isfinite().sum())
    spread = mean[mean.isfinite()]
    assert n > 1500
    assert abs(spread.mean() - 1) < 5 * 0.04 / math.sqrt(n)
    assert abs(spread.std() / 0.04 - 1) < 5 / math.sqrt(2 * n)


def test_an_offset_is_added_whatever_the_drive_with_the_stated_spread():
    chip = turn(written(**MANY), adc_offset_lsb=20.0)
    still = codes(chip, torch.zeros(1, 8))[0].double()
    assert abs(still.mean()) < 5 * 20 / math.sqrt(2000)
    # Rounding adds a twelfth to 400.
    assert abs(still.var() / (400 + 1 / 12) - 1) < 5 * math.sqrt(2 / 2000)
    x = drive(chip, 3)
    shifted = codes(chip, x)
    turn(chip, adc_offset_lsb=0.0)
    apart = shifted - codes(chip, x) - still
    assert apart.abs().max() <= 1


def test_a_bow_deviates_by_its_peak_and_keeps_zero_and_the_ends():
    chip = one_cell(seed=4, adc_bits=12)
    half, x = half_span(12), ramp(chip)
    straight = codes(chip, x)[:, 0].double()
    turn(chip, adc_inl_lsb=40.0)
    bow = codes(chip, x)[:, 0].double() - straight
    u = straight / half
    peak = float(chip.parts.converters.errors(chip._dials, torch.device("cpu")).inl)
    assert (bow - peak * BOW * (u - u**3)).abs().max() <= 1.1
    assert abs(bow).max() == pytest.approx(abs(peak), abs=1.1) and abs(peak) > 5
    assert bow[0] == 0 and abs(bow[-1]) < 0.06 * abs(peak) + 1


def test_peaks_of_bows_have_the_stated_spread():
    chip = written(**MANY, adc_inl_lsb=3.0)
    peaks = chip.parts.converters.errors(chip._dials, torch.device("cpu")).inl.double()
    assert abs(peaks.std() / 3 - 1) < 5 / math.sqrt(2 * peaks.numel())


def test_a_converters_own_noise_adds_to_its_rounding():
    shots, sigma = 6000, 3.0
    chip = written(**IDEAL | {"adc_bits": 10}, inputs=40, outputs=6, adc_noise_lsb=sigma)
    seen = codes(chip, drive(chip, 1), shots=shots)[:, 0].double()
    wanted = sigma**2 + 1 / 12
    assert ((seen.var(0) / wanted - 1).abs() < 5 * math.sqrt(2 / shots)).all()


def test_converter_noise_adds_over_tiles_slices_and_phases_with_their_powers():
    shots, sigma = 6000, 2.0
    options = {"encoding": "sliced", "slices": 2, "slice_bits": 2, "dac_phases": 2, "dac_bits": 4}
    own = {**IDEAL, "adc_bits": 8, **options, "inputs": 9, "outputs": 5, "array_rows": 3}
    chip = written(**own, adc_noise_lsb=sigma)
    seen = codes(chip, torch.zeros(1, 9), shots=shots)[:, 0].double()
    squares = (1 + 4**2) * (1 + 4**2) * 3
    wanted = squares * (sigma**2 + 1 / 12)
    assert ((seen.var(0) / wanted - 1).abs() < 5 * math.sqrt(2 / shots)).all()


def test_a_converter_is_the_same_in_every_phase_and_another_in_every_tile():
    options = {"inputs": 9, "outputs": 400, "array_rows": 3, "dac_phases": 2, "dac_bits": 4}
    chip = written(**{**IDEAL, "adc_bits": 10, **options}, adc_offset_lsb=10.0)
    still = codes(chip, torch.zeros(1, 9))[0].double()
    offset = chip.parts.converters.errors(chip._dials, torch.device("cpu")).offset
    assert torch.equal(still, (offset.double().round() * (1 + 4)).sum(0))
    apart = torch.corrcoef(offset) - torch.eye(3)
    assert apart.abs().max() < 5 / math.sqrt(400)


@EVERYDAY
@given(seed=seeds, factor=st.floats(0.1, 4))
def test_a_larger_dial_scales_the_same_errors(seed, factor):
    errors = make(key=Key(seed), inputs=4, outputs=9).parts.converters.errors
    names = ("adc_gain_spread", "adc_offset_lsb", "adc_inl_lsb", "adc_noise_lsb")
    small, large = (
        errors(dict.fromkeys(names, size), torch.device("cpu")) for size in (0.01, 0.01 * factor)
    )
    assert torch.allclose(large.offset, small.offset * factor, rtol=1e-5)
    assert torch.allclose(large.inl, small.inl * factor, rtol=1e-5)
    assert torch.allclose(large.factor - 1, (small.factor - 1) * factor, atol=1e-6)
    assert large.noise == pytest.approx(small.noise * factor**2)


# ---- the floor ----------------------------------------------------------------------


def variance_seen(chip, x, shots):
    seen = amperes(chip, x, shots=shots)
    return seen.var(0) - code_amperes(chip) ** 2 / 12


@pytest.mark.parametrize("kind", [{}, {"encoding": "offset"}])
@pytest.mark.parametrize("floors", [1.0, 10.0])
def test_cells_at_rest_have_the_thermal_noise_of_their_conductance(kind, floors):
    shots = 6000
    chip = written(**IDEAL, inputs=60, outputs=5, array_rows=60, thermal_floor=floors, **kind)
    g = chip.conductances().double()
    cells = g[0, :, :-1] + g[0, :, -1:] if kind else g.sum(0)
    wanted = floors * 4 * constants.k * 300 * cells.sum(0) / (2 * 1e-6)
    for x in (torch.zeros(1, 60), drive(chip, 1)):
        relative = variance_seen(chip, x, shots)[0] / wanted
        assert ((relative - 1).abs() < 5 * math.sqrt(2 / shots) * 1.1).all()


@pytest.mark.parametrize("fano", [1 / 3, 1.0])
def test_driven_cells_have_the_shot_noise_of_their_voltage(fano):
    shots, kelvin = 6000, 350.0
    options = {"inputs": 60, "outputs": 5, "array_rows": 25, "read_voltage_v": 0.4}
    chip = written(**IDEAL, **options, thermal_floor=1.0, fano=fano, temperature_k=kelvin)
    x, g = drive(chip, 2), chip.conductances().double().sum(0)
    wanted = floor.column_variance(g, x.double() * 0.4, kelvin, fano, 5e5)
    # Three converters a column, each rounding.
    seen = amperes(chip, x, shots=shots).var(0) - 3 * code_amperes(chip) ** 2 / 12
    assert ((seen / wanted - 1).abs() < 5 * math.sqrt(2 / shots) * 1.1).all()
    thermal = floor.column_variance(g, x.double() * 0, kelvin, fano, 5e5)
    assert (wanted > 1.4 * thermal).all()


def test_the_floor_follows_the_thermometer():
    shots = 6000
    chip = written(**IDEAL, inputs=60, outputs=5, array_rows=60, thermal_floor=10.0)
    x, kelvin = torch.zeros(1, 60), (200.0, 400.0)
    cold, hot = (variance_seen(turn(chip, temperature_k=k), x, shots) for k in kelvin)
    assert ((hot / cold - 2).abs() < 2 * 5 * math.sqrt(4 / shots)).all()


def test_a_shorter_read_is_a_noisier_one():
    shots = 6000
    own = {**IDEAL, "inputs": 60, "outputs": 5, "array_rows": 60, "thermal_floor": 10.0}
    slow, fast = (written(**own, read_time_s=t) for t in (1e-6, 0.5e-6))
    x = torch.zeros(1, 60)
    ratio = variance_seen(fast, x, shots) / variance_seen(slow, x, shots)
    assert ((ratio - 2).abs() < 2 * 5 * math.sqrt(4 / shots)).all()


def test_shot_noise_beyond_its_voltages_is_refused_when_built_and_when_turned_up():
    with pytest.raises(ConfigError, match=r"fano.*up to 1 V.*2 V; lower it"):
        make(key=Key(1), read_voltage_v=2.0, thermal_floor=1.0, fano=0.3)
    chip = make(key=Key(1), read_voltage_v=2.0, fano=0.3)
    before = chip.snapshot()
    with pytest.raises(DialError, match="thermal_floor"):
        chip.adjust("thermal_floor", 1.0, key=Key(1))
    assert chip.snapshot().values == before.values
    for fine in ({"fano": 0.0}, {"read_voltage_v": 1.0}):
        own = {"read_voltage_v": 2.0, "fano": 0.3, **fine}
        turn(make(key=Key(1), **own), thermal_floor=1.0).forward(torch.ones(1, 64), key=Key(1))


@pytest.mark.parametrize("fano", [0.0, 1.0])
def test_columns_beside_one_reference_share_its_thermal_and_shot_noise(fano):
    shots, volts = 8000, 0.4
    own = {**IDEAL, "inputs": 60, "outputs": 4, "array_rows": 25, "encoding": "offset"}
    chip = written(**own, read_voltage_v=volts, thermal_floor=10.0, fano=fano)
    x, g = drive(chip, 1), chip.conductances().double()[0]
    law = 10 * floor.column_variance(g, x.double() * volts, 300.0, fano, 5e5)[0]
    seen = amperes(chip, x, shots=shots)[:, 0]
    apart = torch.cov(seen.T)
    own_variance = apart.diagonal() - 3 * code_amperes(chip) ** 2 / 12
    wanted = law[:-1] + law[-1]
    assert ((own_variance / wanted - 1).abs() < 5 * math.sqrt(2 / shots) * 1.1).all()
    common = apart[~torch.eye(4, dtype=torch.bool)]
    bound = 5 * float(wanted.max()) * math.sqrt(2 / shots)
    assert ((common - law[-1]).abs() < bound).all() and law[-1] > 3 * bound


def test_curved_cells_have_the_shot_noise_of_their_own_current():
    shots, volts, kelvin = 8000, 0.5, 300.0
    own = {**IDEAL, "inputs": 60, "outputs": 5, "array_rows": 60, "read_voltage_v": volts}
    chip = written(**own, cubic_per_v2=3.0, thermal_floor=10.0, fano=1.0)
    x, g = drive(chip, 1), chip.conductances().double().sum(0)
    v = (x.double() * volts)[0]
    half = constants.e * v / (2 * constants.k * kelvin)
    through = v * (1 + 3.0 * v**2)
    calm = 4 * constants.k * kelvin
    driven = torch.where(v > 0, 2 * constants.e * through / torch.tanh(half), calm)
    wanted = 10 * driven @ g * 5e5
    seen = amperes(chip, x, shots=shots)[:, 0].var(0) - code_amperes(chip) ** 2 / 12
    assert ((seen / wanted - 1).abs() < 5 * math.sqrt(2 / shots) * 1.1).all()
    straight = 10 * floor.column_variance(g, v[None], kelvin, 1.0, 5e5)[0]
    assert (wanted > 1.2 * straight).all()
