"""The slow oracle of the wires: Kirchhoff's law at every node, solved sparse.

Shares no formula with `wires`: a list of resistors, zero ones contracted. Also
gives the voltage of every node, for a map of the IR drop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from substrates.memristor.wires import Wires, checked
from twin.errors import DriveError

Ints = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Nodes:
    """All voltages and terminal currents of an array, float64.

    word_volts, bit_volts: (batch, m, n), at the two ends of each cell.
    currents: (batch, n), into the sense amplifiers. input_currents: (batch, m).
    """

    word_volts: Tensor
    bit_volts: Tensor
    currents: Tensor
    input_currents: Tensor

    @property
    def cell_volts(self) -> Tensor:
        """What each cell gets, (batch, m, n)."""
        return self.word_volts - self.bit_volts


def nodal_oracle(g: Tensor, volts: Tensor, wires: Wires) -> Nodes:
    """Every node of one array: g (m, n) siemens, volts (batch, m) on the drivers.

    Cells are linear. Memory grows as batch x cells: meant for tests and maps.
    Loses digits with the ratio of the largest resistance to the smallest but zero:
    1e-12 for 1e4, 1e-9 for 1e7 (rational arithmetic on small arrays).
    """
    if g.ndim != 2 or volts.ndim != 2 or volts.shape[1] != len(g):
        raise DriveError(
            f"nodal oracle: expected g (m, n) and volts (batch, m) in volts, got "
            f"{tuple(g.shape)} and {tuple(volts.shape)}. Solve one array at a time."
        )
    cells = checked(g).cpu().numpy()
    drive = volts.to(torch.float64).cpu().numpy()
    m, n = cells.shape
    fixed = np.hstack([drive, np.zeros((len(drive), 1))])  # drivers, then ground
    found = _solved(*_resistors(cells, wires), 2 * m * n, fixed)
    word, bit = (v.reshape(-1, m, n) for v in np.split(found, 2, axis=1))
    cell_currents = cells * (word - bit)
    parts = (word, bit, cell_currents.sum(1), cell_currents.sum(2))
    return Nodes(*(torch.from_numpy(np.ascontiguousarray(p)) for p in parts))


def _resistors(cells: Floats, wires: Wires) -> tuple[Ints, Ints, Floats]:
    """Ends and conductances (inf for a short) of all resistors.

    Nodes: word ends of the cells, their bit ends, the m drivers, ground.
    """
    m, n = cells.shape
    word = np.arange(m * n).reshape(m, n)
    bit = word + m * n
    driver = 2 * m * n + np.arange(m)
    ground = np.full(n, 2 * m * n + m)
    parts = [
        (word, bit, cells),
        (word[:, :-1], word[:, 1:], _conductance(wires.word_ohm)),
        (bit[:-1], bit[1:], _conductance(wires.bit_ohm)),
        (driver, word[:, 0], _conductance(wires.driver_ohm + wires.word_ohm)),
        (bit[-1], ground, _conductance(wires.bit_ohm + wires.sense_ohm)),
    ]
    if wires.word_both_sides:
        parts.append((driver, word[:, -1], _conductance(wires.driver_ohm + wires.word_ohm)))
    if wires.bit_both_sides:
        parts.append((bit[0], ground, _conductance(wires.bit_ohm + wires.sense_ohm)))
    one, other, values = zip(*parts, strict=True)
    siemens = [np.broadcast_to(v, a.shape).ravel() for a, v in zip(one, values, strict=True)]
    return (
        np.concatenate([a.ravel() for a in one]),
        np.concatenate([b.ravel() for b in other]),
        np.concatenate(siemens),
    )


def _conductance(ohm: float) -> Floats:
    return np.asarray(np.inf if ohm == 0 else 1 / ohm)


def _solved(one: Ints, other: Ints, siemens: Floats, free: int, fixed: Floats) -> Floats:
    """Volts (batch, free) of the first `free` nodes; `fixed` (batch, rest) are given."""
    nodes = free + fixed.shape[1]
    short = np.isinf(siemens)
    links = coo_array((np.ones(short.sum()), (one[short], other[short])), (nodes, nodes))
    count, group = connected_components(links, directed=False)
    known = np.zeros(count, dtype=bool)
    known[group[free:]] = True
    volts = np.zeros((len(fixed), count))
    volts[:, group[free:]] = fixed
    if not known.all():
        a, b, c = group[one[~short]], group[other[~short]], siemens[~short]
        ends = (np.r_[a, b, a, b], np.r_[b, a, a, b])
        laplacian = coo_array((np.r_[-c, -c, c, c], ends), (count, count)).tocsr()
        kcl = laplacian[~known]
        right = -(kcl[:, known] @ volts[:, known].T)
        volts[:, ~known] = splu(kcl[:, ~known].tocsc()).solve(right).T
    return volts[:, group[:free]]
