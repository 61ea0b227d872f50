"""Cells on a crossbar: read noise, technologies, ageing."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from substrates.memristor import technology
from substrates.memristor.crossbar import make
from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import (
    NO_LAWS,
    alike,
    amperes,
    code_amperes,
    codes,
    drive,
    turn,
    weights,
    written,
)
from twin.errors import DialError
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
DAY_S = 86400.0
PRESETS = ("neurram-like", "cmo-hfox", "pcm")
SMALL = {"inputs": 10, "outputs": 6, "array_rows": 10}


def still(**options: object):
    """A chip of a technology without telegraph noise and thermal floor."""
    options = {"thermal_floor": 0.0, "adc_bits": 12, "dac_bits": 8, "dac_phases": 1, **options}
    chip = make(key=Key(1), **options)
    table = chip.technology
    if table is not None and table.rtn is not None:
        chip.adjust("rtn_scale", 0.0, key=Key(0))
    return chip


# ---- read noise -------------------------------------------------------------------


@pytest.mark.parametrize("ohms", [0.0, 5e3])
@pytest.mark.parametrize("kind", ["pair", "sliced"])
def test_column_noise_is_that_of_cells_redrawn_behind_their_transistors(kind, ohms):
    shots, noise = 4000, 0.05
    own = {**IDEAL, "inputs": 20, "outputs": 4, "encoding": kind, "series_ohm": ohms}
    chip = written(**{**own, "adc_bits": 14})
    turn(chip, read_noise=noise)
    x = drive(chip, 1)
    fast = amperes(chip, x, shots=shots)[:, 0]
    generator, g = Key(8).torch(), chip.conductances().double()
    slices, volts = len(g) // 2, (x * 0.2).double()
    slow = torch.zeros(shots, 4, dtype=torch.float64)
    for s, power in enumerate(chip.parts.encoding.weights):
        pair = g[2 * s : 2 * s + 2].expand(shots, -1, -1, -1)
        cells = pair * (1 + noise * torch.randn(pair.shape, generator=generator))
        seen = cells / (1 + cells * ohms)
        slow += power * torch.einsum("bi,sio->so", volts, seen[:, 0] - seen[:, 1])
    slow /= sum(chip.parts.encoding.weights)
    assert slices == len(chip.parts.encoding.weights)
    spread = slow.std(0)
    # First order in noise: with 10 % of the voltage lost and noise of 5 % the mean
    # moves by 5e-4 of itself.
    bend = 0.1 * noise**2 * float(fast.abs().mean()) if ohms else 0.0
    assert ((fast.mean(0) - slow.mean(0)).abs() < 5 * spread * math.sqrt(2 / shots) + bend).all()
    assert ((fast.var(0) / slow.var(0) - 1).abs() < 5 * math.sqrt(4 / shots) + noise**2).all()
    assert min(ks_2samp(fast[:, c], slow[:, c]).pvalue for c in range(4)) > 1e-6


def test_cells_differ_in_their_noise_and_have_the_stated_mean_power():
    chip = written(inputs=100, outputs=100, read_noise=0.03, read_noise_spread=0.5)
    cells, now = chip.parts.cells, chip._moment()
    variance = cells.read_variance(chip.conductances(), now, chip._dials)
    level = (variance / chip.conductances().square()).double() / 0.03**2
    n = level.numel()
    # level = exp(2 s n - 2 s^2): mean 1, variance exp(4 s^2) - 1.
    assert abs(level.mean() - 1) < 5 * math.sqrt((math.exp(4 * 0.25) - 1) / n)
    assert abs(level.log().std() / 1.0 - 1) < 5 / math.sqrt(2 * n)


@pytest.mark.parametrize("preset", PRESETS)
def test_column_noise_of_a_technology_is_the_sum_of_its_cells(preset):
    shots = 4000
    chip = still(preset=preset, inputs=20, outputs=4, adc_bits=14)
    chip.program(weights(chip), key=Key(2))
    chip.wait(100.0)
    x, g, table = drive(chip, 1), chip.conductances(), chip.technology
    volts = x.double() * chip.config.read_voltage_v
    if chip.parts.curve is not None:
        curve = chip.parts.curve
        volts = volts * (1 + curve.cubic_per_v2 * volts**2 + curve.quintic_per_v4 * volts**4)
    sigma = table.read_sigma(g, 100.0, chip.parts.cells._levels()).double()
    wanted = volts.square() @ sigma.square().sum(0)
    seen = amperes(chip, x, shots=shots)
    rounding = code_amperes(chip) ** 2 / 12
    assert (((seen.var(0) - rounding) / wanted - 1).abs() < 5 * math.sqrt(2 / shots) * 1.1).all()


# ---- technologies ------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_written_cells_have_the_spread_of_their_technology_at_their_targets(preset, scale):
    chip = turn(still(preset=preset, inputs=150, outputs=150), relaxation_scale=0.0)
    turn(chip, programming_scale=scale)
    w = (weights(chip) * 0.5 + 0.5).clamp(0.5, 1)  # far from zero conductance
    chip.program(w, key=Key(3))
    targets = chip.parts.encoding.targets(w)[0].double()
    sigma = chip.technology.sigma(targets.float()).double() * scale
    z = (chip.conductances()[0].double() - targets) / sigma
    clear = targets > 5.5 * sigma
    n = int(clear.sum())
    assert n > 9000
    assert abs(z[clear].mean()) < 5 / math.sqrt(n)
    assert abs(z[clear].square().mean() - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_technology_with_every_scale_at_zero_is_a_perfect_memory(preset):
    chip = turn(still(preset=preset, **SMALL), **dict.fromkeys(NO_LAWS, 0.0))
    w = weights(chip)
    achieved = chip.program(w, key=Key(2)).achieved["weights"]
    assert torch.allclose(achieved, w, atol=3e-6)
    x, first = drive(chip), codes(chip, drive(chip))
    chip.wait(DAY_S)
    assert torch.equal(codes(chip, x, seed=77), first)


@pytest.mark.parametrize("preset", PRESETS)
def test_cells_of_a_technology_age_by_its_own_law(preset):
    chip = still(preset=preset, **SMALL)
    chip.program(weights(chip), key=Key(2))
    cells = chip.parts.cells
    for age_s in (1.0, 30.0, 1e4, 1.5e5):
        chip.wait(age_s - chip.age_s)
        own = chip.technology.relaxed(cells.programmed, cells.targets, cells._own_slopes(), age_s)
        # The grid of ages is a thousandth of ln t wide.
        assert torch.allclose(chip.conductances(), own, rtol=1e-3, atol=2e-9)


def test_a_plain_law_on_top_of_a_technology_starts_at_one_second():
    chip = turn(still(preset="pcm", **SMALL), **dict.fromkeys(NO_LAWS, 0.0), relaxation_mean=0.05)
    chip.program(weights(chip), key=Key(2))
    fresh = chip.conductances()
    assert torch.equal(fresh, chip.parts.cells.programmed)
    chip.wait(10.0)
    lost = (fresh - chip.conductances()).clamp(min=0)
    held = fresh > 5e-6
    wanted = 0.05 * 25e-6 * math.log(10.0)
    assert ((lost[held] / wanted - 1).abs() < 1e-3).all()


@EVERYDAY
@given(preset=st.sampled_from(PRESETS), a=st.floats(0, 8e4), b=st.floats(0, 8e4), hot=st.booleans())
@example(preset="cmo-hfox", a=0.1, b=0.2, hot=True)
def test_how_a_wait_is_split_changes_no_cell(preset, a, b, hot):
    once, twice = (still(preset=preset, **SMALL) for _ in range(2))
    for chip in (once, twice):
        chip.program(weights(chip), key=Key(2))
        if hot and not chip.capabilities.dial("temperature_k").read_only:
            turn(chip, temperature_k=340.0)
    once.wait(a + b)
    twice.wait(a)
    twice.conductances()
    twice.wait(b)
    assert torch.equal(once.conductances(), twice.conductances())
    assert torch.equal(codes(once, drive(once)), codes(twice, drive(once)))


@EVERYDAY
@given(kelvin=st.floats(280, 390), seconds=st.floats(1, 1e5), cmo=st.booleans())
def test_heat_is_a_longer_wait(kelvin, seconds, cmo):
    options = {"preset": "cmo-hfox"} if cmo else {"relaxation_spread": 0.003}
    hot, cool = (still(**SMALL, **options) for _ in range(2))
    ev, from_k = (1.2, 300.0) if cmo else (1.1, 300.0)
    factor = math.exp(ev / 8.617333262e-5 * (1 / from_k - 1 / kelvin))
    if cmo and seconds * factor > 3e8:
        return
    for chip in (hot, cool):
        chip.program(weights(chip), key=Key(2))
    turn(hot, temperature_k=kelvin)
    hot.wait(seconds)
    turn(hot, temperature_k=300.0)
    cool.wait(seconds * factor)
    assert torch.allclose(hot.conductances(), cool.conductances(), rtol=0, atol=1e-9)
    assert hot.age_s == pytest.approx(seconds)


def test_turning_up_the_heat_ages_no_cell_backwards():
    chip = written(**SMALL, relaxation_mean=0.01, relaxation_spread=0.0)
    chip.wait(1e4)
    before = chip.conductances()
    turn(chip, temperature_k=400.0)
    assert torch.equal(chip.conductances(), before)
    turn(chip, temperature_k=250.0)
    chip.wait(1e4)
    assert torch.allclose(chip.conductances(), before, atol=1e-9)


@pytest.mark.parametrize("preset", ["neurram-like", "pcm"])
def test_a_temperature_without_a_law_is_refused(preset):
    chip = still(preset=preset, **SMALL)
    before = chip.snapshot()
    with pytest.raises(DialError, match=r"temperature_k.*300.0 K.*no law"):
        chip.adjust("temperature_k", 350.0, key=Key(1))
    assert alike(before, chip.snapshot())


def test_every_shipped_technology_makes_a_chip_that_reads():
    for name in technology.names():
        chip = make(key=Key(1), technology=name, **SMALL, thermal_floor=1.0)
        chip.program(weights(chip), key=Key(2))
        chip.wait(3600.0)
        assert torch.isfinite(chip.forward(drive(chip), key=Key(1)).codes.double()).all()
        assert (chip.conductances() >= 0).all()


def test_before_its_first_age_no_cell_moves():
    for preset in PRESETS:
        chip = still(preset=preset, **SMALL)
        chip.program(weights(chip), key=Key(2))
        first_s = chip.technology.relaxation.first_s
        start = chip.conductances()
        chip.wait(first_s * 0.9)
        assert torch.equal(chip.conductances(), start)
