"""From the cells of a chip to the matrices of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import conduction, floor
from substrates.memristor.array import Scratch
from substrates.memristor.cells import Cells, Moment
from substrates.memristor.columns import Columns, Shot
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.converters import Converters, Errors
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults
from substrates.memristor.layout import Layout
from substrates.memristor.traits import Nonlinearity
from substrates.memristor.wiring import Wiring


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

    @property
    def step_v(self) -> float:
        """Row voltage of one DAC code, volts."""
        return self.config.read_voltage_v / self.layout.phase_top

    def conductances(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """Cells behind their access transistors, siemens; wires aside."""
        g = self.cells.conductances(now, dials)
        ohms = self.config.series_ohm
        return g if ohms == 0 else conduction.behind_transistor(g, ohms)


def folded(parts: Parts, now: Moment, dials: Mapping[str, float], full_scale_a: Tensor) -> Columns:
    """All that a pass at this moment needs; full_scale_a: (outputs,), amperes."""
    config, device = parts.config, full_scale_a.device
    cells = parts.cells.conductances(now, dials)
    behind = parts.conductances(now, dials)
    effective = parts.wiring.effective(behind, dials)
    variance = parts.cells.read_variance(cells, now, dials)
    if variance is not None and effective is not cells:
        variance = variance * _sensitivity(cells, behind, effective).square_()
    errors = parts.converters.errors(dials, device)
    scale = parts.step_v * half_span(config.adc_bits) / full_scale_a
    columns = parts.faults.column_factors()
    if columns is not None:
        scale = scale * columns.to(device)
    rows = parts.faults.rows(dials)
    alive = None if rows is None else rows.to(device)[:, None]
    plain = _per_line(parts.layout, scale, errors)
    scales = plain if alive is None else plain * alive
    noise, shared = _noise(parts, variance, scales)
    if shared is not None and alive is not None:
        shared = shared * alive
    return Columns(
        layout=parts.layout,
        scratch=parts.scratch,
        gain=_signal(parts, effective).mul_(scales),
        noise=noise,
        shared=None if shared is None else (shared, _per_tile(parts, plain)),
        steady=_steady(parts, behind, dials, scales, errors),
        shot=_shot(parts, behind, dials, scales),
        errors=errors,
        row_joules=_row_joules(parts, effective, alive),
        curve=parts.curve,
        step_v=parts.step_v,
        bits=config.adc_bits,
        moment=now,
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
    there = cells > 0
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


def _noise(
    parts: Parts, variance: Tensor | None, scales: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Variance of each column, codes^2 per squared drive, and of a reference
    column that all share, siemens^2."""
    if variance is None:
        return None, None
    lines = parts.encoding.split(variance)
    squares = scales.square()
    if parts.encoding.kind != "offset":
        return torch.stack([s.plus + s.minus for s in lines]).mul_(squares), None
    # One reference cell per row feeds all columns: its noise is drawn once and
    # scaled by each column's own converter.
    own = torch.stack([s.plus for s in lines]).mul_(squares)
    return own, torch.stack([s.minus for s in lines])


def _tiles_sum(parts: Parts, per_line: Tensor) -> Tensor:
    """Sums over the rows of each tile: (converters, outputs)."""
    tiles = [per_line[:, rows].sum(1) for rows in parts.layout.tiling.rows]
    return torch.stack(tiles, 1).flatten(0, 1)


def _steady(
    parts: Parts, g: Tensor, dials: Mapping[str, float], scales: Tensor, errors: Errors
) -> Tensor | None:
    """Variance of a conversion whatever the drive, codes^2: thermal and converter."""
    total = None
    if dials["thermal_floor"] > 0:
        config = parts.config
        still = floor.density_per_siemens(torch.zeros(()), dials["temperature_k"], config.fano)
        power = float(still) * floor.read_bandwidth_hz(config.read_time_s)
        power *= dials["thermal_floor"] / parts.step_v**2
        both = torch.stack([s.plus + s.minus for s in parts.encoding.split(g)])
        total = _tiles_sum(parts, (both * scales.square()).mul_(power))
    if errors.noise > 0:
        total = errors.noise + (torch.zeros((), device=g.device) if total is None else total)
    return total


def _shot(parts: Parts, g: Tensor, dials: Mapping[str, float], scales: Tensor) -> Shot | None:
    config = parts.config
    if dials["thermal_floor"] == 0 or config.fano == 0:
        return None
    both = torch.stack([s.plus + s.minus for s in parts.encoding.split(g)])
    return Shot(
        weight=(both * scales.square()).mul_(dials["thermal_floor"] / parts.step_v**2),
        temperature_k=dials["temperature_k"],
        fano=config.fano,
        bandwidth_hz=floor.read_bandwidth_hz(config.read_time_s),
        step_v=parts.step_v,
    )


def _row_joules(parts: Parts, g: Tensor, alive: Tensor | None) -> Tensor:
    """Energy of a read on each row at one DAC code, sum V^2 G t. Behind wires the sum over
    effective conductances is a lower bound, low by 0.7 % at 64 x 64 cells and 1 ohm."""
    joules = g.sum((0, 2)) * (parts.step_v**2 * parts.config.read_time_s)
    return joules if alive is None else joules * alive[:, 0]
