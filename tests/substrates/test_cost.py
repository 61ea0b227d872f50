"""The cost sheet agrees with what a chip's own ledger says."""

import pytest
import torch

from substrates.memristor.cost import cost_sheet
from substrates.memristor.crossbar import make
from twin.key import Key

SIZES = {"inputs": 60, "outputs": 40}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"array_rows": 20, "adc_bits": 6},
        {"dac_phases": 4},
        {"dac_phases": 8},
        {"write_mode": "one-shot"},
        {"encoding": "offset"},
        {"preset": "cmo-hfox"},
    ],
    ids=str,
)
def test_energy_and_time_are_those_of_a_random_chip_and_random_drives(options):
    sheet = cost_sheet({**SIZES, **options})
    chip = make(key=Key(1), **SIZES, **options)
    weights = torch.rand((60, 40), generator=Key(2).torch()) * 2 - 1
    written = chip.program(weights, key=Key(3))
    assert written.cells == sheet.cells
    assert written.device_seconds == pytest.approx(sheet.write_seconds)
    assert written.joules == pytest.approx(sheet.write_joules)
    drive = torch.rand((2000, 60), generator=Key(4).torch())
    reading = chip.forward(drive, key=Key(5))
    assert reading.device_seconds / 2000 == pytest.approx(sheet.pass_seconds)
    # First order: cells are not at the mean of their law.
    array = reading.joules / 2000 - sheet.converter_joules
    assert array == pytest.approx(sheet.array_joules, rel=0.1)


@pytest.mark.parametrize(
    "more",
    [{}, {"read_noise": 0.0, "programming_error": 0.0}, {"technology": "cmo-hfox-2"}],
    ids=str,
)
def test_a_verified_write_takes_the_pulses_the_law_expects(more):
    # With one cell per weight nearly all cells of a new chip are to be moved.
    options = {"inputs": 100, "outputs": 100, "encoding": "offset", "write_mode": "verify", **more}
    sheet, chip = cost_sheet(options), make(key=Key(1), **options)
    written = chip.program(torch.rand((100, 100), generator=Key(2).torch()) * 2 - 1, key=Key(3))
    # Some 3 % of the cells are there already; 1e4 geometric numbers scatter by 1 %.
    assert written.device_seconds == pytest.approx(sheet.write_seconds, rel=0.08)
    assert written.joules == pytest.approx(sheet.write_joules, rel=0.15)


def test_arrays_are_counted_as_they_are_wired():
    sizes = {"inputs": 60, "outputs": 40, "array_rows": 20, "array_cols": 10}
    together = cost_sheet(sizes).arrays
    assert together == 12
    assert cost_sheet({**sizes, "pair_layout": "separate"}).arrays == 24
    assert cost_sheet({**sizes, "encoding": "sliced"}).arrays == 24
    assert cost_sheet({**sizes, "encoding": "offset"}).arrays == 3


def test_halving_the_bits_of_a_converter_divides_its_energy_and_area():
    fine, coarse = (cost_sheet({**SIZES, "adc_bits": bits}) for bits in (8, 4))
    assert fine.converter_joules / coarse.converter_joules == pytest.approx(16)
    assert fine.converter_area_m2 / coarse.converter_area_m2 == pytest.approx(16)
    assert fine.cell_area_m2 == coarse.cell_area_m2 > 0
    assert fine.area_m2 > coarse.area_m2


def test_shorter_arrays_need_more_converters_and_as_many_cells():
    tall, short = (cost_sheet({**SIZES, "array_rows": rows}) for rows in (60, 20))
    assert (short.cells, short.converters) == (tall.cells, 3 * tall.converters)
    assert short.arrays == 3 * tall.arrays
