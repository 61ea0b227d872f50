"""From the cells of a chip to the matrices of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import conduction, floor
from substrates.memristor.ages import Moment
from substrates.memristor.array import Scratch
from substrates.memristor.cells import Cells
from substrates.memristor.columns import Columns, Shared, Shot
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.converters import Converters, Errors
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults
from substrates.memristor.layout import Layout
from substrates.memristor.presets import curve
from substrates.memristor.technology import Technology
from substrates.memristor.traits import Nonlinearity
from substrates.memristor.wiring import Wiring
from twin.key import Key


@dataclass(frozen=True)
class Parts:
    """The parts of one chip that a pass goes through."""

    config: CrossbarConfig
    encoding: Encoding
    layout: Layout
    cells: Cells
    faults: Faults
    wiring: Wiring
    converters: Converters
    curve: Nonlinearity | None
    scratch: Scratch

    @staticmethod
    def of(config: CrossbarConfig, technology: Technology | None, key: Key) -> Parts:
        """The parts of the chip that `config` and its own `key` make."""
        encoding = Encoding.of(config)
        layout = Layout.of(config, encoding)
        own_curve = curve(config, technology)
        faults = Faults(key.child("faults"), encoding, config.adc_bits)
        return Parts(
            config=config,
            encoding=encoding,
            layout=layout,
            cells=Cells(config, encoding, technology, faults, key),
            faults=faults,
            wiring=Wiring(config, layout, encoding),
            converters=Converters(key.child("converters"), layout.converters, config.outputs),
            curve=own_curve,
            scratch=Scratch(),
        )

    @property
    def step_v(self) -> float:
        """Row voltage of one DAC code, volts."""
        return self.config.read_voltage_v / self.layout.phase_top

    def present(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """Cells as the lines reach them, siemens: none on open ones."""
        g = self.cells.conductances(now, dials)
        whole = self.faults.connected(dials)
        return g if whole is None else g * whole.to(g.device)

    def conductances(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """The same behind their access transistors, siemens; wires aside."""
        return self.behind(self.present(now, dials))

    def behind(self, g: Tensor) -> Tensor:
        """Conductances behind their access transistors, siemens."""
        ohms = self.config.series_ohm
        return g if ohms == 0 else conduction.behind_transistor(g, ohms)


def folded(parts: Parts, now: Moment, dials: Mapping[str, float], full_scale_a: Tensor) -> Columns:
    """All that a pass at this moment needs; full_scale_a: (outputs,), amperes."""
    config, device = parts.config, full_scale_a.device
    cells = parts.present(now, dials)
    behind = parts.behind(cells)
    effective = parts.wiring.effective(behind, dials)
    variance = parts.cells.read_variance(cells, now, dials)
    if variance is not None and effective is not cells:
        variance = variance * _sensitivity(cells, behind, effective).square_()
    errors = parts.converters.errors(dials, device)
    scale = parts.step_v * half_span(config.adc_bits) / full_scale_a
    columns = parts.faults.column_factors()
    if columns is not None:
        scale = scale * columns.to(device)
    scales = _per_line(parts.layout, scale, errors)
    own, reference = _split(parts, variance)
    floor_g = None if dials["thermal_floor"] == 0 else parts.wiring.thermal(behind, dials)
    calm = _Floor.of(parts, dials, floor_g)
    return Columns(
        layout=parts.layout,
        scratch=parts.scratch,
        gain=_signal(parts, effective).mul_(scales),
        noise=None if own is None else own.mul_(scales.square()),
        shared=_shared(parts, reference, calm, scales),
        steady=_steady(parts, calm, scales, errors),
        shot=None if calm is None else calm.shot(parts, calm.own * scales.square()),
        errors=errors,
        row_joules=_row_joules(parts, effective),
        curve=parts.curve,
        step_v=parts.step_v,
        bits=config.adc_bits,
        moment=now,
    )


@dataclass(frozen=True)
class _Floor:
    """Thermal and shot noise. own: siemens of each column, (slices, inputs, outputs);
    reference: of the column that all share, (slices, inputs, 1), None without one.
    at_rest: variance per siemens whatever the drive, in squared DAC codes and siemens.
    scale: multiples of the law, per squared volt of a DAC code."""

    own: Tensor
    reference: Tensor | None
    at_rest: float
    scale: float
    temperature_k: float

    @staticmethod
    def of(parts: Parts, dials: Mapping[str, float], g: Tensor | None) -> _Floor | None:
        """The floor at these dials; g: conductances behind it, None without."""
        own, reference = _split(parts, g)
        if own is None:
            return None
        config, kelvin = parts.config, dials["temperature_k"]
        still = float(floor.density_per_siemens(torch.zeros(()), kelvin, config.fano))
        scale = dials["thermal_floor"] / parts.step_v**2
        power = still * floor.read_bandwidth_hz(config.read_time_s) * scale
        return _Floor(own, reference, power, scale, kelvin)

    def shot(self, parts: Parts, weight: Tensor) -> Shot | None:
        """What comes with the current; weight: as of Shot, in multiples of one."""
        config = parts.config
        if config.fano == 0:
            return None
        return Shot(
            weight=weight.mul_(self.scale),
            temperature_k=self.temperature_k,
            fano=config.fano,
            bandwidth_hz=floor.read_bandwidth_hz(config.read_time_s),
            step_v=parts.step_v,
        )


def _signal(parts: Parts, g: Tensor) -> Tensor:
    """G+ - G- of each slice, siemens, (slices, inputs, outputs)."""
    return torch.stack([s.plus - s.minus for s in parts.encoding.split(g)])


def _sensitivity(cells: Tensor, behind: Tensor, effective: Tensor) -> Tensor:
    """d effective / d cell: exact for the transistor, along its own path for wires.

    A cell's fluctuation also moves the voltages of its lines, which the other
    drives share; left out, this makes the variance too large by about the share
    of the signal lost in wires (5 to 9 % too large where 5.6 % is lost).
    """
    there = behind > 0
    one = torch.ones_like(cells)
    series = torch.where(there, behind / cells, one).square_()
    return torch.where(there, effective / behind, one).mul_(series)


def _per_line(layout: Layout, scale: Tensor, errors: Errors) -> Tensor:
    """Codes per siemens at one DAC code, broadcastable to (slices, inputs, outputs)."""
    if errors.factor is None:
        return scale
    slices, tiles = len(layout.slice_weights), len(layout.tiling.rows)
    factor = errors.factor.view(slices, tiles, -1)
    heights = torch.tensor([r.stop - r.start for r in layout.tiling.rows], device=scale.device)
    return scale * factor.repeat_interleave(heights, 1)


def _per_tile(parts: Parts, lines: Tensor) -> Tensor:
    """The same for each converter of a chip with one slice, (row tiles, outputs)."""
    shape = (1, parts.config.inputs, parts.config.outputs)
    return lines.expand(shape)[0, [rows.start for rows in parts.layout.tiling.rows]]


def _split(parts: Parts, g: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Sums over the two lines of each column, (slices, inputs, outputs); with a reference
    column that of the other line, and the reference's own, (slices, inputs, 1)."""
    if g is None:
        return None, None
    lines = parts.encoding.split(g)
    if parts.encoding.kind != "offset":
        return torch.stack([s.plus + s.minus for s in lines]), None
    return torch.stack([s.plus for s in lines]), torch.stack([s.minus for s in lines])


def _shared(
    parts: Parts, variance: Tensor | None, calm: _Floor | None, scales: Tensor
) -> Shared | None:
    """One reference cell per row feeds all columns: its noise is drawn once and scaled by
    each column's own converter."""
    reference = None if calm is None else calm.reference
    if variance is None and reference is None:
        return None
    steady = shot = None
    if calm is not None and reference is not None:
        steady = _tiles_sum(parts, reference) * calm.at_rest
        shot = calm.shot(parts, reference.clone())
    return Shared(variance, steady, shot, _per_tile(parts, scales))


def _tiles_sum(parts: Parts, per_line: Tensor) -> Tensor:
    """Sums over the rows of each tile: (converters, outputs)."""
    tiles = [per_line[:, rows].sum(1) for rows in parts.layout.tiling.rows]
    return torch.stack(tiles, 1).flatten(0, 1)


def _steady(parts: Parts, calm: _Floor | None, scales: Tensor, errors: Errors) -> Tensor | None:
    """Variance of a conversion whatever the drive, codes^2: thermal and converter."""
    total = None
    if calm is not None:
        total = _tiles_sum(parts, (calm.own * scales.square()).mul_(calm.at_rest))
    if errors.noise > 0:
        total = errors.noise + (torch.zeros((), device=scales.device) if total is None else total)
    return total


def _row_joules(parts: Parts, g: Tensor) -> Tensor:
    """Energy of a read on each row at one DAC code, sum V^2 G t. Behind wires the sum over
    effective conductances is a lower bound, low by 0.7 % at 64 x 64 cells and 1 ohm."""
    return g.sum((0, 2)) * (parts.step_v**2 * parts.config.read_time_s)
