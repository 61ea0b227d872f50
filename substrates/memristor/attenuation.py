"""Cheap IR drop for training: ladders instead of the whole network.

Each cell is attenuated by its word line, as if bit lines were at ground, times
its bit line, as if word lines were. That is exact to first order in wire
resistance; what is missing can be held over from the last exact solve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from substrates.memristor.wires import Floats, Wires, checked, effective_matrix, seen_along


@dataclass(frozen=True)
class Held:
    """What the ladders miss, kept from the last exact solve.

    missed: exact - ladders, (..., m, n), siemens. Sneak currents through the
    lines of other cells, which add to a cell's own whatever it conducts: so the
    difference is held, not the ratio, and it is good for an array written anew.

    Measured, relative to the exact matrix, 64 x 64 cells uniform in 1 to 40 uS,
    1 ohm: ladders alone 8e-4; held, cells moved by 1 % of the window 3e-6, all
    drawn anew 1.2e-4. (The ratio exact / g held instead: 1.2e-4 and 5.6e-3.)
    """

    wires: Wires
    missed: Tensor

    @staticmethod
    def of(g: Tensor, wires: Wires, exact: Tensor | None = None) -> Held:
        """From conductances g (..., m, n), siemens; exact: their effective matrix."""
        exact = effective_matrix(g, wires) if exact is None else exact
        return Held(wires, exact - approximate_matrix(g, wires))

    def matrix(self, g: Tensor) -> Tensor:
        """The approximate effective matrix of other conductances, siemens, float64."""
        return approximate_matrix(g, self.wires).add_(self.missed)


@dataclass(frozen=True)
class Misfit:
    """How far an approximate effective matrix is from the exact one.

    relative: Frobenius norm of the difference / that of the exact matrix.
    of_loss: the same / that of the loss in the wires, conductances - exact.
    worst: largest absolute difference / largest exact entry.
    """

    relative: float
    of_loss: float
    worst: float


def approximate_matrix(g: Tensor, wires: Wires) -> Tensor:
    """The effective matrix by ladders alone, siemens, float64; O(m n).

    g: (..., m, n), siemens. Exact with ideal word lines or ideal bit lines, and
    to first order in all resistances; sneak paths through the lines of other
    cells are left out. Measured for cells uniform in 1 to 40 uS, relative to the
    exact matrix: 8e-4 at 64 x 64 and 1 ohm, 1e-2 at 128 x 128 and 1 ohm or
    64 x 64 and 5 ohm. `misfit` tells for a given array.
    """
    g = checked(g).detach()
    cells = g.cpu().numpy()
    nodes = np.moveaxis(cells, -1, 0)
    word = _volts_along(nodes, wires.word_ohm, wires.driver_to_cell_ohm, wires.word_both_sides)
    # By reciprocity a cell's share in the sense current is the voltage it would
    # see from there. Sensed at the last row, hence the flips.
    nodes = np.moveaxis(cells, -2, 0)[::-1]
    bit = _volts_along(nodes, wires.bit_ohm, wires.cell_to_sense_ohm, wires.bit_both_sides)
    found = cells * np.moveaxis(word, 0, -1) * np.moveaxis(bit[::-1], 0, -2)
    return torch.from_numpy(found).to(g.device)


def thermal_matrix(g: Tensor, wires: Wires) -> Tensor:
    """Conductances whose sum along a bit line is what its thermal noise comes from.

    g: (..., m, n), siemens; same shape back, float64. By Nyquist's theorem the noise of
    a sense current is 4kT times the admittance seen there with all else at ground,
    wires included. That is the ladder of the bit line, each cell in series with its own
    stretch of word line; exact with ideal word lines, and to first order in all
    resistances. Measured beside `input_matrix` of the array on its side, cells uniform
    in 1 to 40 uS, largest error of a line: 5e-5 at 64 x 64 and 1 ohm, 3e-4 at 128 x 128
    and 1 ohm, 8e-4 at 64 x 64 and 5 ohm. What the two lines of a pair have in common is
    left out: 0.13, 0.25 and 0.6 % of the variance of their difference.
    """
    g = checked(g).detach()
    order = torch.arange(g.shape[-1], dtype=torch.float64)
    ohm = wires.driver_to_cell_ohm + wires.word_ohm * order
    if wires.word_both_sides:
        ohm = ohm * ohm.flip(0) / (ohm + ohm.flip(0)).clamp(min=1e-300)
    behind = (g / (1 + g * ohm.to(g.device))).cpu().numpy()
    nodes = np.moveaxis(behind, -2, 0)[::-1]
    bit = _volts_along(nodes, wires.bit_ohm, wires.cell_to_sense_ohm, wires.bit_both_sides)
    return torch.from_numpy(behind * np.moveaxis(bit[::-1], 0, -2)).to(g.device)


def misfit(approximate: Tensor, g: Tensor, wires: Wires, exact: Tensor | None = None) -> Misfit:
    """Compare an approximate effective matrix of g (..., m, n) with the exact one."""
    exact = effective_matrix(g, wires) if exact is None else exact
    difference = approximate.to(torch.float64) - exact
    size, lost = exact.norm(), (checked(g) - exact).norm()
    return Misfit(
        relative=_ratio(difference.norm(), size),
        of_loss=_ratio(difference.norm(), lost),
        worst=_ratio(difference.abs().max(), exact.abs().max()),
    )


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if float(whole) > 0 else 0.0


def _volts_along(shunt: Floats, ohm: float, end_ohm: float, both: bool) -> Floats:
    """Volts along lines driven with 1 V through end_ohm, at the first node or both ends.

    shunt: (nodes, ...), siemens to ground at each node; ohm: between nodes.
    """
    far = 1 / end_ohm if both and end_ohm > 0 else 0.0
    seen = seen_along(np.ascontiguousarray(shunt[::-1]), ohm, far)[::-1]
    before = np.full(len(seen), ohm)
    before[0] = end_ohm
    passed = 1 / (1 + before.reshape(-1, *(1 for _ in seen.shape[1:])) * seen)
    if far == 0:
        return passed.cumprod(0)
    # What the far driver adds at each node, as a current.
    source = np.full_like(passed, far)
    source[:-1] *= passed[:0:-1].cumprod(0)[::-1]
    volts = np.ones_like(passed[0])
    for node, share in enumerate(passed):
        volts = (volts + before[node] * source[node]) * share
        source[node] = volts
    return source
