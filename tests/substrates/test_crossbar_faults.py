"""Broken cells, rows and columns of a crossbar."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import codes, drive, turn, uniform, weights, written
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
KINDS = ("pair", "offset", "sliced")
SIZES = {**IDEAL, "inputs": 12, "outputs": 6, "array_rows": 5, "adc_bits": 10}
CELLS = ("stuck_low_fraction", "stuck_high_fraction", "stuck_cell_fraction")
FRACTIONS = (*CELLS, "dead_row_fraction", "dead_column_fraction", "stuck_column_fraction")


def differ(chip: Crossbar) -> torch.Tensor:
    """Cells that are not as they were programmed."""
    return (chip.conductances() - chip.parts.cells.programmed).abs() > 1e-12


# ---- cells, rows, columns ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dial", "place"), [(CELLS[0], 0.0), (CELLS[1], 1.0), (CELLS[2], None)])
def test_stuck_cells_sit_where_their_kind_says(kind, dial, place):
    chip = written(**{**SIZES, "inputs": 60, "outputs": 50}, encoding=kind, g_min_siemens=1e-6)
    turn(chip, **{dial: 0.3})
    mask, _ = chip.parts.faults.stuck_cells(chip._dials)
    n = mask.numel()
    assert abs(mask.double().mean() - 0.3) < 5 * math.sqrt(0.21 / n)
    level = (chip.conductances()[mask].double() - 1e-6) / 19e-6
    if place is None:
        assert kstest(level.numpy(), "uniform").pvalue > 1e-6
    else:
        assert (level - place).abs().max() < 1e-5
    assert not (differ(chip) & ~mask).any()
    chip.program(weights(chip, 8), key=Key(9))
    again = (chip.conductances()[mask].double() - 1e-6) / 19e-6
    assert torch.equal(again, level)


@EVERYDAY
@given(seed=seeds, a=st.floats(0, 1), b=st.floats(0, 1), dial=st.sampled_from(FRACTIONS))
def test_severer_faults_contain_the_milder_and_none_are_none(seed, a, b, dial):
    chip = make(key=Key(seed), **SIZES)

    def broken(fraction: float) -> torch.Tensor:
        turn(chip, **{dial: fraction})
        faults, dials = chip.parts.faults, chip._dials
        if dial in CELLS:
            found = faults.stuck_cells(dials)
            return torch.zeros(chip.parts.encoding.shape) if found is None else found[0].float()
        if dial == "dead_row_fraction":
            rows = faults.rows(dials)
            return torch.zeros(12) if rows is None else 1 - rows
        return faults.columns(dials).mask.float()

    mild, severe = (broken(f) for f in sorted((a, b)))
    assert (severe >= mild).all()
    assert not broken(0.0).any() and broken(1.0).all()


@EVERYDAY
@given(seed=seeds, kind=st.sampled_from(KINDS), share=st.floats(0.1, 0.9))
def test_a_dead_row_is_a_row_without_drive(seed, kind, share):
    chip = written(seed, **SIZES, encoding=kind)
    x = drive(chip, seed=seed)
    rows = (uniform(seed, 12) < share).float()
    without = codes(chip, x * (1 - rows))
    turn(chip, dead_row=rows)
    assert torch.equal(codes(chip, x), without)
    turn(chip, dead_row=torch.zeros(12), dead_row_fraction=share)
    factors = chip.parts.faults.rows(chip._dials)
    alive = torch.ones(12) if factors is None else factors
    here = codes(chip, x)
    turn(chip, dead_row_fraction=0.0)
    assert torch.equal(here, codes(chip, x * alive))


def test_a_dead_row_makes_no_noise_and_takes_no_energy():
    chip = written(**{**SIZES, "read_noise": 0.05})
    x = torch.zeros(1, 12)
    x[0, 4] = 1.0
    rows = torch.zeros(12)
    rows[4] = 1
    idle = chip.forward(torch.zeros(1, 12), key=Key(1)).joules
    assert chip.forward(x, key=Key(1)).joules > idle
    turn(chip, dead_row=rows)
    assert not codes(chip, x, shots=50).any()
    assert chip.forward(x, key=Key(1)).joules == idle


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_with_an_open_line_reads_zero_and_its_neighbours_as_before(kind):
    chip = written(**{**SIZES, "read_noise": 0.05}, encoding=kind)
    x, healthy = drive(chip), codes(chip, drive(chip))
    dead = torch.tensor([0.0, 1, 0, 0, 1, 0])
    turn(chip, dead_column=dead)
    seen = codes(chip, x)
    assert not seen[:, dead > 0].any()
    assert torch.equal(seen[:, dead == 0], healthy[:, dead == 0])
    assert torch.equal(codes(turn(chip, dead_column=torch.zeros(6)), x), healthy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mis_ranged_column_is_off_by_its_factor(kind):
    wide = {"adc_full_scale_a": 2e-4, "adc_bits": 12}
    chip = written(**{**SIZES, **wide}, encoding=kind)
    x, factor = drive(chip), torch.tensor([1.0, 0.5, 0.25, 2.0, 0.0, 1.0])
    healthy = codes(chip, x).double()
    turn(chip, column_gain=factor)
    banks = chip._code_weight
    assert (codes(chip, x) - healthy * factor).abs().max() <= 0.5 * 3 * banks


@EVERYDAY
@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_a_map_of_cells_comes_on_top_of_the_chips_own_faults(seed, kind):
    chip = written(seed, **SIZES, encoding=kind)
    shape = chip.parts.encoding.shape
    level = uniform(seed, *shape, low=-1.0)
    turn(chip, stuck_low_fraction=0.5, stuck_cell_level=level)
    held = level >= 0
    wanted = 2e-6 + 18e-6 * level
    assert torch.allclose(chip.conductances()[held], wanted[held], rtol=1e-5)
    own = chip.parts.faults.stuck_cells(chip._dials)[0] & ~held
    assert torch.allclose(chip.conductances()[own], torch.tensor(2e-6))
    turn(chip, stuck_low_fraction=0.0, stuck_cell_level=torch.full(shape, -1.0))
    assert not differ(chip).any()


@EVERYDAY
@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_maps_travel_with_a_snapshot(seed, kind):
    chip = written(seed, **SIZES, encoding=kind)
    healthy, x = chip.snapshot(), drive(chip, seed=seed)
    before = codes(chip, x)
    turn(chip, dead_row=(uniform(seed, 12) < 0.4).float(), column_gain=uniform(seed, 6) * 3)
    turn(chip, stuck_cell_level=uniform(seed, *chip.parts.encoding.shape, low=-1.0))
    broken, seen = chip.snapshot(), codes(chip, x)
    chip.restore(healthy)
    assert torch.equal(codes(chip, x), before)
    twin = make(key=Key(seed), **SIZES, encoding=kind)
    twin.restore(broken)
    assert torch.equal(codes(twin, x), seen)


LINES = {"word_ohm": 30.0, "bit_ohm": 20.0}


def test_open_lines_are_no_load_and_make_no_noise_and_take_no_energy():
    own = {**SIZES, "array_rows": 12, "thermal_floor": 1.0, "read_noise": 0.02, **LINES}
    broken, whole = written(**own), written(**own)
    rows, columns = torch.zeros(12), torch.zeros(6)
    rows[[1, 8]], columns[[0, 4]] = 1.0, 1.0
    turn(broken, dead_row=rows, dead_column=columns)
    alive = (1 - rows)[:, None] * (1 - columns)
    there = broken.parts.conductances(broken._moment(), broken._dials)
    assert torch.equal(there, whole.conductances() * alive)
    assert torch.equal(broken.conductances(), whole.conductances())
    seen, full = (c._columns(c._moment()) for c in (broken, whole))
    for lines in (seen.gain, seen.noise):
        assert not lines[:, rows > 0].any() and not lines[..., columns > 0].any()
    assert not seen.row_joules[rows > 0].any() and not seen.steady[..., columns > 0].any()
    # The rest see less load, so more signal, and take less energy in all.
    left = alive > 0
    more = broken.parts.wiring.effective(there, broken._dials)[:, left]
    assert (more > whole.parts.wiring.effective(whole.conductances(), whole._dials)[:, left]).all()
    assert seen.row_joules.sum() < 0.7 * full.row_joules.sum()


def test_an_open_column_takes_the_energy_of_its_cells_away():
    chip = written(**SIZES)
    x = drive(chip)
    cells = chip.conductances().double().sum(0)
    before = chip.forward(x, key=Key(1)).joules
    turn(chip, dead_column=torch.tensor([0.0, 1, 0, 0, 0, 0]))
    saved = before - chip.forward(x, key=Key(1)).joules
    wanted = float((x.double() * 0.2).square().sum(0) @ cells[:, 1]) * 1e-6
    assert saved == pytest.approx(wanted, rel=1e-3)
