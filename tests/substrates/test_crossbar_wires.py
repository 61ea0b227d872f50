"""A crossbar behind wires and access transistors: exact, held, and how far off."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from substrates.memristor.attenuation import approximate_matrix, thermal_matrix
from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.presets import IDEAL
from substrates.memristor.wires import (
    Wires,
    effective_matrix,
    effective_pairs,
    input_matrix,
    interleaved,
    parted,
)
from tests.substrates.crossbars import (
    alike,
    amperes,
    code_amperes,
    codes,
    drive,
    turn,
    uniform,
    weights,
    written,
)
from twin.errors import ConfigError
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
ohms = st.sampled_from([0.0, 1.0, 30.0])
SIZES = {"inputs": 11, "outputs": 7, "array_rows": 6, "array_cols": 4, "adc_full_scale_a": 9e-5}
LINES = {"word_ohm": 10.0, "bit_ohm": 5.0}
STIFF = {"word_ohm": 200.0, "bit_ohm": 100.0}


def solved(chip: Crossbar, g: torch.Tensor, solve=effective_matrix, **lines: object):
    """Every array of a chip by itself, siemens, float64; pairs are neighbours."""
    out, wires = torch.zeros_like(g, dtype=torch.float64), Wires(**lines)  # type: ignore[arg-type]
    tiling = chip.layout.tiling
    for rows in tiling.rows:
        if chip.config.encoding == "offset":
            out[0, rows] = solve(g[0, rows], wires)
            continue
        for cols in tiling.cols:
            for s in range(0, len(g), 2):
                part = g[s : s + 2, rows, cols]
                if wires.pairs == "separate":
                    out[s : s + 2, rows, cols] = solve(part, wires)
                else:
                    out[s : s + 2, rows, cols] = parted(solve(interleaved(part), wires))
    return out


def in_force(chip: Crossbar) -> torch.Tensor:
    return chip.parts.wiring.effective(chip.conductances(), chip._dials).double()


# ---- exact ------------------------------------------------------------------------


@EVERYDAY
@given(
    seed=seeds,
    kind=st.sampled_from(["pair", "offset", "sliced"]),
    word=ohms,
    bit=ohms,
    driver=ohms,
    sense=ohms,
    both=st.booleans(),
    sensed=st.booleans(),
    pairs=st.sampled_from(["neighbours", "separate"]),
)
def test_every_array_of_a_chip_is_solved_exactly(
    seed, kind, word, bit, driver, sense, both, sensed, pairs
):
    lines = {"word_ohm": word, "bit_ohm": bit, "driver_ohm": driver, "sense_ohm": sense}
    options = {**IDEAL, **SIZES, "encoding": kind, "adc_bits": 12, "pair_layout": pairs}
    chip = make(key=Key(seed), **options, **lines, both_sides=both, sense_both_sides=sensed)
    chip.program(weights(chip, seed), key=Key(2))
    sides = {"word_both_sides": both, "bit_both_sides": sensed}
    wanted = solved(chip, chip.conductances(), **lines, **sides, pairs=pairs)
    assert torch.allclose(in_force(chip), wanted, rtol=1e-5, atol=1e-13)
    assert chip.wire_error() < 1e-6


@pytest.mark.parametrize("kind", ["pair", "offset"])
def test_currents_are_those_of_the_effective_matrix(kind):
    chip = written(**IDEAL, **SIZES, **LINES, encoding=kind)
    x = drive(chip)
    m = solved(chip, chip.conductances(), **LINES)
    net = m[0, :, :-1] - m[0, :, -1:] if kind == "offset" else m[0] - m[1]
    off = (amperes(chip, x) - x.double() @ net * 0.2).abs()
    assert (off < 1.1 * code_amperes(chip)).all()  # half a code for each of two tiles


def test_more_resistance_never_gives_more_current():
    chip, last = written(**IDEAL, **SIZES), None
    w = torch.ones(11, 7)
    chip.program(w, key=Key(2))
    for ohm in (0.0, 1.0, 10.0, 100.0):
        seen = codes(turn(chip, word_ohm=ohm, bit_ohm=ohm), torch.ones(1, 11) * 0.3)
        assert last is None or (seen < last).all()
        last = seen


def test_a_row_without_drive_is_still_a_load_behind_wires_but_not_without():
    for lines, same in ((LINES, False), ({}, True)):
        chip = written(**IDEAL, **SIZES, **lines)
        w, x = weights(chip), drive(chip)
        x[:, 3] = 0
        before = codes(chip, x)
        w[3] = 1.0
        chip.program(w, key=Key(2))
        assert torch.equal(codes(chip, x), before) is same


# ---- access transistors --------------------------------------------------------------


@EVERYDAY
@given(seed=seeds, ohm=st.floats(0, 1e5))
def test_cells_conduct_through_their_transistors(seed, ohm):
    chip = written(seed, **IDEAL, **SIZES, series_ohm=ohm)
    g, x = chip.conductances().double(), drive(chip, seed=seed)
    behind = g / (1 + g * ohm)
    off = (amperes(chip, x) - x.double() @ (behind[0] - behind[1]) * 0.2).abs()
    assert (off < 1.1 * code_amperes(chip)).all()


def test_wires_come_behind_the_transistors():
    chip = written(**IDEAL, **SIZES, **LINES, series_ohm=2e4)
    g, x = chip.conductances().double(), drive(chip)
    m = solved(chip, g / (1 + g * 2e4), **LINES)
    off = (amperes(chip, x) - x.double() @ (m[0] - m[1]) * 0.2).abs()
    assert (off < 1.1 * code_amperes(chip)).all()


def test_curved_cells_fold_into_the_drive_and_take_v_times_i():
    chip = written(**IDEAL, **SIZES, read_voltage_v=0.5, cubic_per_v2=2.0)
    g, x = chip.conductances().double(), drive(chip)
    volts = x.double() * 0.5
    through = volts * (1 + 2 * volts**2)
    assert ((amperes(chip, x) - through @ (g[0] - g[1])).abs() < 1.1 * code_amperes(chip)).all()
    reading = chip.forward(x, key=Key(1))
    converters = len(x) * chip._conversions * 2**16 * 50e-15
    power = float((volts * through).sum(0) @ g.sum((0, 2)))
    assert reading.joules - converters == pytest.approx(power * 1e-6, rel=1e-3)


@pytest.mark.parametrize("volts", [0.1, 0.2, 0.37, 0.4, 0.5])
def test_curved_cells_take_the_highest_voltage_of_their_curve_whatever_the_dac(volts):
    for bits in range(1, 17):
        own = {"cubic_per_v2": 1.0, "read_voltage_v": volts, "dac_bits": bits, "inputs": 2}
        chip = written(**own, outputs=1, thermal_floor=1.0, fano=0.3)
        assert torch.isfinite(codes(chip, torch.ones(1, 2)).double()).all()


@pytest.mark.parametrize("lines", [{"word_ohm": 1.0}, {"series_ohm": 1e3}, {"sense_ohm": 1.0}])
@pytest.mark.parametrize("curved", [{"cubic_per_v2": 1.0}, {"preset": "cmo-hfox"}])
def test_curved_cells_behind_resistances_are_refused(lines, curved):
    with pytest.raises(ConfigError, match=r"series_ohm, word_ohm.*to 0, or linear"):
        make(key=Key(1), **lines, **curved)


# ---- noise behind wires ----------------------------------------------------------------


@pytest.mark.parametrize("lines", [{"word_ohm": 30.0, "bit_ohm": 30.0}, {"sense_ohm": 300.0}])
def test_read_noise_behind_wires_is_off_by_no_more_than_two_shares_of_the_signal_lost(lines):
    chip = written(**IDEAL, inputs=12, outputs=3, **lines)
    turn(chip, read_noise=0.05)
    g, x = chip.conductances().double(), drive(chip, 1)[0].double()
    wires = chip.parts.wiring.wires(chip._dials)
    exact, true = effective_pairs(g, wires), torch.zeros(3, dtype=torch.float64)
    for cell in range(g.numel()):
        moved = g.flatten().clone()
        moved[cell] *= 1 + 1e-4
        change = effective_pairs(moved.view_as(g), wires) - exact
        true += (x @ (change[0] - change[1]) / 1e-4 * 0.05 * 0.2).square()
    lost = float(1 - exact.sum() / g.sum())
    # As a multiple of the noise without wires, where the variance is exact.
    plain = turn(written(**IDEAL, inputs=12, outputs=3), read_noise=0.05)
    behind, ahead = (x.square() @ c._columns(c._moment()).noise[0].double() for c in (chip, plain))
    without = x.square() @ g.square().sum(0) * (0.05 * 0.2) ** 2
    model = behind / ahead * without
    assert 0.01 < lost < 0.05
    assert ((model / true - 1).abs() < 2 * lost).all()
    assert ((model - true).abs() < (without - true).abs()).all()


# ---- held ------------------------------------------------------------------------------


def held_chip(every: int, **options: object) -> Crossbar:
    # All cells are written anew: whatever they do, nothing but the count is to matter.
    options = {"wire_drift": 1.0, **options}
    return make(key=Key(1), **IDEAL, **SIZES, **STIFF, wire_refresh=every, **options)


@settings(max_examples=6, deadline=None)
@given(seed=seeds, every=st.integers(2, 4), kind=st.sampled_from(["pair", "offset"]))
def test_what_ladders_miss_is_held_for_so_many_writes_and_its_error_is_told(seed, every, kind):
    chip, solves, missed = held_chip(every, encoding=kind), 0, None
    for write in range(1, 2 * every + 2):
        chip.program(weights(chip, seed + write), key=Key(2))
        g = chip.conductances()
        exact, ladders = (
            solved(chip, g, s, **STIFF) for s in (effective_matrix, approximate_matrix)
        )
        if missed is None or write % every == 0:
            missed, solves = exact - ladders, solves + 1
            assert chip.wire_error() < 1e-6
        assert torch.allclose(in_force(chip), ladders + missed, rtol=1e-6, atol=0)
        told = float((ladders + missed - exact).norm() / exact.norm())
        assert chip.wire_error() == pytest.approx(told, abs=3e-7)
    assert solves == 3


@EVERYDAY
@given(seed=seeds, writes=st.integers(1, 7), more=st.integers(1, 5))
def test_a_snapshot_between_solves_brings_back_what_was_held(seed, writes, more):
    chip, twin = held_chip(4), held_chip(4)
    for write in range(writes):
        chip.program(weights(chip, seed + write), key=Key(2))
    saved, x = chip.snapshot(), drive(chip)
    reading, error = codes(chip, x), chip.wire_error()
    for write in range(more):
        chip.program(weights(chip, seed - write), key=Key(2))
    for other in (chip, twin):
        other.restore(saved)
        assert torch.equal(codes(other, x), reading)
        assert other.wire_error() == error
        other.program(weights(chip, seed + 99), key=Key(2))
    assert alike(chip.snapshot(), twin.snapshot())
    assert torch.equal(codes(chip, x), codes(twin, x))


def test_turning_the_wires_while_an_attenuation_is_held_is_seen_at_once():
    chip, fresh = held_chip(100), make(key=Key(1), **IDEAL, **SIZES, word_ohm=10.0, bit_ohm=100.0)
    for other in (chip, fresh):
        other.program(weights(chip), key=Key(2))
    turn(chip, word_ohm=10.0)
    x = drive(chip)
    assert torch.equal(codes(chip, x), codes(fresh, x))
    turn(chip, word_ohm=0.0, bit_ohm=0.0)
    assert torch.equal(codes(chip, x), codes(turn(fresh, word_ohm=0.0, bit_ohm=0.0), x))
    assert chip.wire_error() == 0


def test_asking_for_every_write_makes_it_exact_at_once():
    chip = held_chip(50)
    for write in range(3):
        chip.program(uniform(write, 11, 7, low=-1.0), key=Key(2))
    assert chip.wire_error() > 1e-5
    assert turn(chip, wire_refresh=1.0).wire_error() == 0


def test_a_chip_whose_cells_conduct_nothing_has_no_wire_error():
    assert make(key=Key(1), **IDEAL, **SIZES, **LINES, g_min_siemens=0.0).wire_error() == 0


@pytest.mark.parametrize(
    ("dial", "value"),
    [
        ("stuck_high_fraction", 0.3),
        ("dead_row", torch.ones(11)),
        ("dead_column", torch.tensor([1.0, 0, 0, 0, 0, 0, 0])),
        ("stuck_cell_level", torch.full((2, 11, 7), 0.7)),
    ],
)
def test_a_fault_while_an_attenuation_is_held_makes_the_wires_exact_at_once(dial, value):
    chip = held_chip(50)
    for write in range(2):
        chip.program(uniform(write, 11, 7, low=-1.0), key=Key(2))
    assert chip.wire_error() > 1e-5
    assert turn(chip, adc_noise_lsb=1.0).wire_error() > 1e-5
    assert turn(chip, **{dial: value}).wire_error() == 0


def test_cells_that_have_drifted_far_make_the_wires_exact_and_near_ones_do_not():
    for change, exact in ((0.005, False), (0.02, True)):
        chip = held_chip(50, wire_drift=0.01)
        w = uniform(3, 11, 7, low=-0.9) * 0.9
        chip.program(w, key=Key(2))
        # One cell of each pair moves.
        chip.program((w.abs() + 2 * change) * w.sign(), key=Key(2))
        assert (chip.wire_error() < 1e-6) is exact
        waiting = held_chip(50, wire_drift=0.01)
        waiting.program(w, key=Key(2))
        turn(waiting, relaxation_mean=change / math.log(1e4))
        # Cells at the bottom move as well, by as much.
        waiting.wait(1e4)
        assert (waiting.parts.wiring.held is None) is exact
        codes(waiting, drive(waiting))


def test_how_a_wait_is_split_changes_nothing_when_it_ends_what_was_held():
    once, twice = (turn(held_chip(50, wire_drift=0.01), relaxation_mean=0.002) for _ in range(2))
    for chip in (once, twice):
        chip.program(weights(chip), key=Key(2))
    once.wait(2e5)
    for seconds in (1.0, 1e5 - 1, 1e5):
        twice.wait(seconds)
    assert once.parts.wiring.held is None
    assert torch.equal(codes(once, drive(once)), codes(twice, drive(once)))


@pytest.mark.parametrize("sides", [{}, {"both_sides": True, "sense_both_sides": True}])
def test_thermal_noise_behind_wires_is_that_of_the_admittance_at_the_sense_amplifier(sides):
    shots, kelvin = 6000, 300.0
    lines = {"word_ohm": 3.0, "bit_ohm": 60.0, "driver_ohm": 20.0, "sense_ohm": 100.0}
    own = {**IDEAL, "inputs": 40, "outputs": 5, "array_rows": 40, "g_max_siemens": 4e-5}
    chip = written(**own, **lines, **sides, thermal_floor=1.0, temperature_k=kelvin)
    wires = chip.parts.wiring.wires(chip._dials)
    array = interleaved(chip.conductances()).double()
    # Seen from the sense amplifiers: the array on its side, their ends first.
    seen = input_matrix(array.mT.flip(-2, -1), wires.turned()).flip(-2, -1)
    pair = seen.diagonal()[0::2] + seen.diagonal()[1::2] - 2 * seen[0::2, 1::2].diagonal()
    wanted = 4 * constants.k * kelvin * pair / 2e-6
    found = amperes(chip, torch.zeros(1, 40), shots=shots)[:, 0].var(0)
    found -= code_amperes(chip) ** 2 / 12
    assert ((found / wanted - 1).abs() < 5 * math.sqrt(2 / shots) * 1.1).all()
    # Neither the cells themselves nor the effective ones would do.
    assert (array.sum(0)[0::2] + array.sum(0)[1::2] > 1.03 * pair).all() or sides


@pytest.mark.parametrize("ohm", [1.0, 5.0])
def test_the_ladder_of_thermal_noise_is_as_near_as_it_says(ohm):
    g = uniform(4, 64, 64).double() * 39e-6 + 1e-6
    wires = Wires(word_ohm=ohm, bit_ohm=ohm)
    exact = input_matrix(g.mT.flip(-2, -1), wires.turned()).flip(-2, -1).diagonal()
    off = (thermal_matrix(g, wires).sum(0) / exact - 1).abs().max()
    assert off < {1.0: 1e-4, 5.0: 1.5e-3}[ohm]
