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
    # First order: bits of a phase are not uniform in [0, 1], cells are not at
    # the mean of their law.
    loose = 0.6 if "dac_phases" in options else 0.1
    array = reading.joules / 2000 - sheet.converter_joules
    assert array == pytest.approx(sheet.array_joules, rel=loose)


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
