"""Wires of an array: exact IR drop, as an effective transconductance matrix.

All in SI units (ohm, siemens, volt, ampere) and float64. m word lines carry the
drives, n bit lines end in sense amplifiers at virtual ground. Cells are linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.linalg.blas import dsymm
from scipy.linalg.lapack import dpotrf, dpotri
from torch import Tensor

from twin.config import STRICT
from twin.errors import SettingError

CHUNK_VALUES = 2**17
"""About how many entries of column blocks are computed together, 1 MB."""

MOST_FALL = 300.0
"""Exponents up to here neither overflow nor underflow when taken one by one."""

Floats = npt.NDArray[np.float64]
Ohm = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Wires:
    """Resistances of an array's lines, and from which ends they are used.

    A line has one segment per cell: the outermost cell is reached from a driver
    or sense amplifier through that one's resistance and one segment. Zero is
    exact: no word_ohm is an equipotential line, no driver_ohm besides an ideal one.
    """

    word_ohm: Ohm = 0.35
    """One word-line segment, ohm. The 0.35 ohm per cell of aihwkit's tile; its
    time-sliced tile takes 0.15, studies of IR drop often 1."""
    bit_ohm: Ohm = 0.35
    """One bit-line segment, ohm. As word_ohm."""
    driver_ohm: Ohm = 0.0
    """Output resistance of a word-line driver, ohm. Assumed."""
    sense_ohm: Ohm = 0.0
    """Input resistance of a sense amplifier, ohm. Assumed."""
    word_both_sides: bool = False
    """Word lines are driven at the first and at the last bit line, with equal volts."""
    bit_both_sides: bool = False
    """Bit lines are sensed below the last word line and above the first, currents added."""
    pairs: Literal["neighbours", "separate"] = "neighbours"
    """G+ and G- of a pair: on neighbouring bit lines of one array, or in two arrays."""

    @property
    def driver_to_cell_ohm(self) -> float:
        return self.driver_ohm + self.word_ohm

    @property
    def cell_to_sense_ohm(self) -> float:
        return self.bit_ohm + self.sense_ohm

    @property
    def ideal(self) -> bool:
        """Whether all lines and amplifiers are perfect."""
        return self.driver_to_cell_ohm == 0 and self.cell_to_sense_ohm == 0

    def turned(self) -> Wires:
        """The wires of the array on its side: word lines become bit lines."""
        return replace(
            self,
            word_ohm=self.bit_ohm,
            bit_ohm=self.word_ohm,
            driver_ohm=self.sense_ohm,
            sense_ohm=self.driver_ohm,
            word_both_sides=self.bit_both_sides,
            bit_both_sides=self.word_both_sides,
        )


def effective_matrix(g: Tensor, wires: Wires) -> Tensor:
    """Currents of the bit lines per volt on a word-line driver, exactly; siemens.

    g: (..., m, n), siemens, finite and >= 0; leading axes are arrays of their
    own. Returns the same shape, float64: a drive of `volts` (batch, m) gives the
    currents volts @ matrix. Law: Kirchhoff's at every node, columns eliminated
    from the last to the first. Costs n dense factorisations of m x m (or m of
    n x n, whichever is less), memory about 10 matrices; on the CPU, whatever g's
    device.
    """
    g = checked(g)
    if wires.ideal:
        return g.clone()
    tall = g.shape[-2] > g.shape[-1]
    if tall:
        # Reciprocity: volts at the sense end give the same currents at the drivers.
        # Turned by 180 degrees too, so that the driven ends come first again.
        g, wires = g.mT.flip(-2, -1), wires.turned()
    found = _each(g, wires, 0)
    return found.flip(-2, -1).mT.contiguous() if tall else found


def input_matrix(g: Tensor, wires: Wires) -> Tensor:
    """Currents out of the word-line drivers per volt on another, siemens, float64.

    g: (..., m, n), siemens. Returns (..., m, m), symmetric. The power taken from
    the drivers at `volts` (m,) is volts @ matrix @ volts, wires and amplifiers
    included. Its row sums are those of the effective matrix (what goes in comes
    out), so sum_i V_i^2 sum_j M_ij is a lower bound of the power, and without
    wires sum_i V_i^2 sum_j G_ij the upper one.
    """
    g = checked(g)
    if wires.ideal:
        return torch.diag_embed(g.sum(-1))
    return _each(g, wires, 1)


def effective_pairs(g: Tensor, wires: Wires) -> Tensor:
    """Effective matrices of signed pairs; g: (..., 2, m, n), siemens, G+ then G-.

    With pairs on neighbouring bit lines the order on the array is G+ and G- of
    output 0, then of output 1, up to 2n bit lines. Same shape back, float64.
    """
    if g.ndim < 3 or g.shape[-3] != 2:
        raise SettingError(
            f"wires: pairs have shape (..., 2, inputs, outputs) with G+ then G-, in siemens, "
            f"got {tuple(g.shape)}. Stack the two along the third axis from the end."
        )
    if wires.pairs == "separate":
        return effective_matrix(g, wires)
    return parted(effective_matrix(interleaved(g), wires))


def interleaved(pairs: Tensor) -> Tensor:
    """(..., 2, m, n) as the bit lines of one array, (..., m, 2n): G+ and G- in turn."""
    return pairs.movedim(-3, -1).flatten(-2)


def parted(array: Tensor) -> Tensor:
    """The inverse of `interleaved`: (..., m, 2n) to (..., 2, m, n)."""
    return array.unflatten(-1, (-1, 2)).movedim(-1, -3).contiguous()


def checked(g: Tensor) -> Tensor:
    """Conductances in float64; SettingError unless a matrix of finite values >= 0."""
    if g.ndim < 2 or 0 in g.shape:
        raise SettingError(
            f"wires: expected conductances (..., word lines, bit lines) in siemens, "
            f"got shape {tuple(g.shape)}."
        )
    # NaN fails both comparisons.
    bad = ~((g >= 0) & (g < torch.inf))
    if bool(bad.any()):
        raise SettingError(
            f"wires: conductances must be finite and >= 0 S, got {g[bad][0].item():g} S; "
            f"clamp what was written before the array is solved."
        )
    return g.to(torch.float64)


def _each(g: Tensor, wires: Wires, part: int) -> Tensor:
    """Part 0 or 1 of `_eliminated` for each array of g (..., m, n), on g's device."""
    arrays = g.detach().cpu().reshape(-1, *g.shape[-2:]).numpy()
    found = np.stack([_eliminated(array, wires)[part] for array in arrays])
    return torch.from_numpy(found).reshape(*g.shape[:-2], *found.shape[1:]).to(g.device)


def _eliminated(g: Floats, wires: Wires) -> tuple[Floats, Floats]:
    """Effective matrix (m, n) and input matrix (m, m) of one array g (m, n).

    Seen from the left of column j, with w the volts there and V those of the
    drivers, all columns from j on are a multi-port: currents y w - (y - level) V
    into the word lines, out^T w + side^T V out of the bit lines, and from the far
    drivers, if any, (y - level)^T (V - w) + far V. `level` (all at V) is carried
    instead of its difference to y, which would cancel. Nothing is divided by a
    resistance that may be zero.
    """
    m, n = g.shape
    # In Fortran's order, so that LAPACK works without copies; numpy and scipy
    # call it at half the overhead of torch, which is most of it at 64 x 64.
    out, y = np.zeros((m, n), order="F"), np.zeros((m, m), order="F")
    side, level, far = np.zeros((m, n)), y.copy(), y.copy()
    both = wires.word_both_sides and wires.driver_to_cell_ohm > 0
    if both:
        np.fill_diagonal(y, 1 / wires.driver_to_cell_ohm)
    for j, block in _column_blocks(g, wires):
        y += block
        out[:, j] = block.sum(1)
        ohm = wires.word_ohm if j else wires.driver_to_cell_ohm
        if both:
            level += block
        if ohm == 0:
            continue
        behind = _behind(ohm, y)
        to_far = (y - level).T * ohm if both else far
        y = dsymm(1.0, behind, y, side=1, lower=1)
        out[:, j:] = dsymm(1.0, behind, out[:, j:], lower=1)
        if both:
            level = dsymm(1.0, behind, level, lower=1)
            side[:, j:] += to_far @ out[:, j:]
            far += to_far @ level
    return (out + side, level + far) if both else (out, y)


def _behind(ohm: float, y: Floats) -> Floats:
    """(1 + ohm y)^-1, lower half: volts at an admittance y behind a resistance.

    y is positive, so that what is inverted has no eigenvalue below 1.
    """
    matrix = y * ohm
    matrix.ravel(order="K")[:: len(y) + 1] += 1.0
    factor, failed = dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
    assert failed == 0
    return dpotri(factor, lower=1, overwrite_c=1)[0]


def _column_blocks(g: Floats, wires: Wires) -> Iterator[tuple[int, Floats]]:
    """Each bit line by itself, last first: (j, currents per volt (m, m)).

    With b the volts along a bit line and w those at the word ends of its cells,
    (T + D) b = D w, D = diag(g). T + D is tridiagonal, so its inverse follows
    from two ladders of continued fractions, one looking up and one down the
    line, and an exponent that cannot overflow.
    """
    m, n = g.shape
    ends, ohm = wires.cell_to_sense_ohm, wires.bit_ohm
    top = 1 / ends if wires.bit_both_sides and ends > 0 else 0.0
    up = seen_along(g, ohm, top)
    above = np.full_like(g, top)
    above[1:] = up[:-1] / (1 + ohm * up[:-1])
    down = np.full_like(g, ends)
    for i in reversed(range(1, m)):
        down[i - 1] = down[i] / (1 + g[i] * down[i]) + ohm
    # log of b[0] / b[i], from a current injected at or below cell i.
    fall = np.zeros_like(g)
    np.cumsum(np.log1p(ohm * up[:-1]), axis=0, out=fall[1:])
    total = 1 + down * up
    parts = (g, g * (1 + down * above) / total, down / total, fall)
    own = [np.ascontiguousarray(part.T) for part in parts]
    step = max(1, CHUNK_VALUES // m**2)
    for stop in range(n, 0, -step):
        start = max(0, stop - step)
        blocks = _response(*(part[start:stop] for part in own))
        yield from zip(reversed(range(start, stop)), blocks[::-1], strict=True)


def _response(g: Floats, own: Floats, inverse: Floats, fall: Floats) -> Floats:
    """Currents of bit lines per volt, (lines, m, m): D - D (T + D)^-1 D.

    All (lines, m): conductances, diagonal of the result, diagonal of the inverse
    and its exponents: element i < k is inverse[k] exp(fall[i] - fall[k]).
    """
    index = np.arange(g.shape[1])
    lower = index[:, None] >= index
    if fall.max() < MOST_FALL:
        # Rank one on either side of the diagonal: far cheaper than exponentials.
        steep = np.exp(fall)
        found = (-g * inverse / steep)[:, :, None] * (g * steep)[:, None, :]
    else:
        found = np.exp(-np.abs(fall[:, :, None] - fall[:, None, :]))
        found *= (-g * inverse)[:, :, None] * g[:, None, :]
    found = np.where(lower, found, found.swapaxes(1, 2))
    found[:, index, index] = own
    return found


def seen_along(shunt: Floats, ohm: float, first: float) -> Floats:
    """Admittances along ladders, from each node towards node 0 with its own shunt.

    shunt: (nodes, ...), siemens to ground; ohm: between nodes; first: siemens to
    ground at node 0 besides its shunt.
    """
    seen = shunt.copy()
    seen[0] += first
    for before, here in pairwise(seen):
        here += before / (1 + ohm * before)
    return seen
