"""What a chip costs by first-order laws, before anything is simulated.

Energy of a pass: array sum V^2 G t over the cells, plus one conversion of
figure of merit x 2^bits per column, array, slice and phase. Energy and time of
a write: pulses, one cell after the other; write-verify reads each cell before its
first pulse (V^2 G t; converters are counted for passes only) and then takes the
pulses that the law expects of cells that have all to be moved. Area: cells and
converters, without routing. A run's ledger adds up what was really driven and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults
from substrates.memristor.layout import Layout
from substrates.memristor.presets import configured
from substrates.memristor.technology import Technology
from substrates.memristor.verifylaws import acceptance, expected_pulses
from substrates.memristor.writing import Writer
from twin.key import Key

MEAN_WINDOW_SHARE = 0.25
"""Where in the window the cells of a pair sit on average, weights uniform in [-1, 1]."""

GRID = 257
"""Targets that the pulses of a verified write are averaged over."""


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
    config, technology = configured(options)
    encoding = Encoding.of(config)
    layout = Layout.of(config, encoding)
    lines, inputs, columns = encoding.shape
    cells = lines * inputs * columns
    converters = layout.converters * config.outputs
    siemens = config.g_min_siemens + _mean_share(encoding) * config.window_siemens
    per_read = config.read_voltage_v**2 * siemens * config.read_time_s
    steps = 2.0**config.adc_bits
    pulses, checked = _pulses(config, encoding, technology), config.write_mode == "verify"
    return CostSheet(
        cells=cells,
        converters=converters,
        arrays=_arrays(config, encoding, layout),
        array_joules=cells * per_read * mean_square_drive(layout) * layout.phases,
        converter_joules=converters * layout.phases * config.adc_joules_per_step * steps,
        pass_seconds=config.read_time_s * layout.phases,
        write_joules=cells * (pulses * config.write_pulse_joules + checked * per_read),
        write_seconds=cells * (pulses * config.write_pulse_s + checked * config.read_time_s),
        cell_area_m2=cells * config.cell_area_f2 * config.feature_m**2,
        converter_area_m2=converters * config.adc_area_m2_per_step * steps,
    )


def mean_square_drive(layout: Layout) -> float:
    """(2L - 1) / (6 (L - 1)) of full voltage squared: of L equally likely levels."""
    levels = 2**layout.phase_bits
    return (2 * levels - 1) / (6 * (levels - 1))


def _mean_share(encoding: Encoding) -> float:
    return 0.5 if encoding.kind == "offset" else MEAN_WINDOW_SHARE


def _arrays(config: CrossbarConfig, encoding: Encoding, layout: Layout) -> int:
    """Physical arrays: with a reference column all outputs of a row tile share one."""
    if encoding.kind == "offset":
        return len(layout.tiling.rows)
    each = 2 if config.pair_layout == "separate" else 1
    return layout.tiling.arrays * encoding.slices * each


def _pulses(config: CrossbarConfig, encoding: Encoding, technology: Technology | None) -> float:
    """Mean pulses per cell, targets uniform in the window; half of the cells of pairs at
    its bottom."""
    if config.write_mode == "outcome":
        return float(config.write_pulses)
    if config.write_mode == "one-shot":
        return 1.0
    writer = Writer(config, encoding, technology, Faults(Key(0), encoding, config.adc_bits))
    targets = torch.linspace(config.g_min_siemens, config.g_max_siemens, GRID)
    scale = {} if technology is None else {"programming_scale": 1.0}
    sigma = writer.pulse_sigma(targets, scale).double()
    sigma = (sigma**2 + (config.programming_error * config.window_siemens) ** 2).sqrt()
    tolerance = writer.tolerance(targets).double()
    noise = targets.double() * config.read_noise
    if technology is not None:
        noise = (noise**2 + technology.read_sigma(targets, 0.0).double() ** 2).sqrt()
    means = [
        expected_pulses(acceptance(*numbers), config.verify_max_pulses)
        for numbers in zip(sigma.tolist(), tolerance.tolist(), noise.tolist(), strict=True)
    ]
    uniform = sum(means) / GRID
    return uniform if encoding.kind == "offset" else (uniform + means[0]) / 2
