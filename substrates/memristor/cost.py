"""What a chip costs by first-order laws, before anything is simulated.

Energy of a pass: array sum V^2 G t over the cells, plus one conversion of
figure of merit x 2^bits per column, array, slice and phase. Energy and time of
a write: pulses, one cell after the other. Area: cells and converters, without
routing. A run's ledger adds up what was really driven and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from substrates.memristor.encoding import Encoding
from substrates.memristor.layout import Layout
from substrates.memristor.presets import configured

MEAN_SQUARE_DRIVE = 1 / 3
"""Of a drive uniform in [0, 1]."""
MEAN_WINDOW_SHARE = 0.25
"""Where in the window the cells of a pair sit on average, weights uniform in [-1, 1]."""


@dataclass(frozen=True)
class CostSheet:
    """Joules and seconds of one pass and of one write, square metres of silicon.

    cells, converters, arrays: how many there are. A pass is one sample through
    all arrays at once; a write is the whole setting.
    """

    cells: int
    converters: int
    arrays: int
    array_joules: float
    converter_joules: float
    pass_seconds: float
    write_joules: float
    write_seconds: float
    cell_area_m2: float
    converter_area_m2: float

    @property
    def pass_joules(self) -> float:
        return self.array_joules + self.converter_joules

    @property
    def area_m2(self) -> float:
        return self.cell_area_m2 + self.converter_area_m2


def cost_sheet(options: Mapping[str, object]) -> CostSheet:
    """The sheet of the chip that these options make (see `presets.configured`)."""
    config, _ = configured(options)
    encoding = Encoding.of(config)
    layout = Layout.of(config, encoding)
    lines, inputs, columns = encoding.shape
    cells = lines * inputs * columns
    converters = layout.converters * config.outputs
    share = 0.5 if encoding.kind == "offset" else MEAN_WINDOW_SHARE
    siemens = config.g_min_siemens + share * config.window_siemens
    per_cell = config.read_voltage_v**2 * MEAN_SQUARE_DRIVE * siemens * config.read_time_s
    conversions = converters * layout.phases
    steps = 2.0**config.adc_bits
    pulses = cells * config.write_pulses
    return CostSheet(
        cells=cells,
        converters=converters,
        arrays=layout.tiling.arrays * encoding.slices,
        array_joules=cells * per_cell * layout.phases,
        converter_joules=conversions * config.adc_joules_per_step * steps,
        pass_seconds=config.read_time_s * layout.phases,
        write_joules=pulses * config.write_pulse_joules,
        write_seconds=pulses * config.write_pulse_s,
        cell_area_m2=cells * config.cell_area_f2 * config.feature_m**2,
        converter_area_m2=converters * config.adc_area_m2_per_step * steps,
    )
