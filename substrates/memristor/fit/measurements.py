"""Readings of real cells over time: what a fit needs, and what it refuses.

Plain arrays in siemens and seconds. Every refusal is a DataError that names the
column or cell, what was expected, what came, and what to measure instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from substrates.memristor.curve import HOLE_RATIO
from twin.errors import DataError

COLUMNS = ("time_s", "target_siemens", "conductance_siemens", "cell")

CELLS_PER_TARGET = 16
"""With fewer, a spread is known to worse than 20 % and none can be held out."""

TARGETS = 2
VISITS_PER_CELL = 3
SPAN = 10.0
"""Last time / first time: relaxation over less than a decade is read noise."""

VISIT = 1.1
"""Readings within 10 % in time are repeats: relaxation in between is far below
the read noise of every published technology."""

REPEATS_PER_CELL = 2
"""Further readings beside the first of a visit, summed over a cell's visits."""

LARGEST_SIEMENS = 1e-3
"""1 kilo-ohm, above the window of any memristor cell; microsiemens exceed it."""

LARGEST_BIAS = 0.5
"""First readings further than this fraction from their target belong to other units."""


@dataclass(frozen=True)
class Measurements:
    """Readings of cells that were written once each, a row per cell in order of time.

    names: (C,). target: (C,), siemens. time_s since the write, conductance
    (siemens) and taken: (C, K); entries that were not taken hold the cell's first.
    """

    names: NDArray[np.str_]
    target: NDArray[np.float64]
    time_s: NDArray[np.float64]
    conductance: NDArray[np.float64]
    taken: NDArray[np.bool_]

    @staticmethod
    def of(
        time_s: ArrayLike,
        target_siemens: ArrayLike,
        conductance_siemens: ArrayLike,
        cell: ArrayLike,
    ) -> Measurements:
        """From four columns of equal length, in any order of rows.

        Raises DataError where they cannot be fitted or contradict each other.
        """
        columns = [np.asarray(c, np.float64) for c in (time_s, target_siemens, conductance_siemens)]
        names = np.asarray(cell).astype(np.str_)
        for column, name in zip(columns, COLUMNS, strict=False):
            _finite(column, name)
        time, target, g = columns
        _physical(time, target, g)
        found = _rows(time, _rounded(target), g, names)
        _enough(found)
        _agreeing(found)
        return found

    @property
    def levels(self) -> NDArray[np.float64]:
        """The distinct targets, ascending, siemens."""
        return np.unique(self.target)

    @property
    def first_s(self) -> float:
        """The earliest time at which anything was read."""
        return float(self.time_s.min())

    @property
    def visits(self) -> NDArray[np.int64]:
        """Which visit of its cell each reading belongs to, (C, K)."""
        return _visits(self.time_s, self.taken)

    def of_cells(self, index: NDArray[np.int64]) -> Measurements:
        """Some of the cells, all their readings."""
        return replace(
            self,
            names=self.names[index],
            target=self.target[index],
            time_s=self.time_s[index],
            conductance=self.conductance[index],
            taken=self.taken[index],
        )

    def split(
        self, fraction: float, generator: np.random.Generator
    ) -> tuple[Measurements, Measurements]:
        """(kept, held out): whole cells, `fraction` of every target's, at least two."""
        out = []
        for level in self.levels:
            cells = generator.permutation(np.flatnonzero(self.target == level))
            out.append(cells[: max(2, round(fraction * len(cells)))])
        held = np.sort(np.concatenate(out))
        kept = np.setdiff1d(np.arange(len(self.target)), held)
        return self.of_cells(kept), self.of_cells(held)


def _finite(column: NDArray[np.float64], name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        raise DataError(
            f"{name}: {len(bad)} of {len(column)} values are missing or not finite, the first in "
            f"data row {bad[0] + 1} ({column[bad[0]]}). Expected a number in every row: leave out "
            "readings that failed."
        )


def _physical(
    time: NDArray[np.float64], target: NDArray[np.float64], g: NDArray[np.float64]
) -> None:
    if len(time) == 0:
        raise DataError("no readings: the table has a header and no rows.")
    _above(time, "time_s", 0, "s", "It counts from the end of the write; its logarithm is used.")
    _above(target, "target_siemens", 0, "S", "Leave out cells that were only reset.")
    if g.min() < 0:
        row = int(np.argmin(g))
        raise DataError(
            f"conductance_siemens: data row {row + 1} is {g[row]:.4g} S, expected >= 0. Correct "
            "the offset of the instrument, or take the magnitude for reads at negative voltage."
        )
    for column, name in ((target, "target_siemens"), (g, "conductance_siemens")):
        if column.max() > LARGEST_SIEMENS:
            row = int(np.argmax(column))
            raise DataError(
                f"{name}: data row {row + 1} is {column[row]:.4g}, expected siemens up to "
                f"{LARGEST_SIEMENS:g} S (1 kilo-ohm). If these are microsiemens, multiply the "
                "column by 1e-6."
            )


def _above(column: NDArray[np.float64], name: str, low: float, unit: str, remedy: str) -> None:
    if column.min() <= low:
        row = int(np.argmin(column))
        raise DataError(
            f"{name}: data row {row + 1} is {column[row]:.4g} {unit}, expected > {low:g} {unit}. "
            f"{remedy}"
        )


def _rounded(target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Six digits: 2.34e-05 and 2.3400001e-05 are one target."""
    return np.array([float(f"{value:.5e}") for value in target])


def _rows(
    time: NDArray[np.float64],
    target: NDArray[np.float64],
    g: NDArray[np.float64],
    cell: NDArray[np.str_],
) -> Measurements:
    """One row per cell, padded; refuses two targets of one cell and repeated rows."""
    names, index = np.unique(cell, return_inverse=True)
    order = np.lexsort((g, time, index))
    index, time, target, g = index[order], time[order], target[order], g[order]
    _unique(names, index, time, target, g)
    counts = np.bincount(index)
    starts = np.cumsum(counts) - counts
    taken = np.arange(counts.max()) < counts[:, None]
    place = np.where(taken, starts[:, None] + np.arange(counts.max()), starts[:, None])
    return Measurements(names, target[starts], time[place], g[place], taken)


def _unique(
    names: NDArray[np.str_],
    index: NDArray[np.int64],
    time: NDArray[np.float64],
    target: NDArray[np.float64],
    g: NDArray[np.float64],
) -> None:
    same = index[1:] == index[:-1]
    twice = np.flatnonzero(same & (target[1:] != target[:-1]))
    if len(twice):
        at = twice[0]
        raise DataError(
            f"cell {names[index[at]]!r} has the targets {target[at]:.6g} S and "
            f"{target[at + 1]:.6g} S. A trajectory begins with one write: name each write's "
            "readings apart, e.g. 'r3c7-write2'."
        )
    copies = np.flatnonzero(same & (time[1:] == time[:-1]) & (g[1:] == g[:-1]))
    if len(copies):
        at = copies[0]
        raise DataError(
            f"{len(copies)} rows appear twice, the first: cell {names[index[at]]!r} at "
            f"{time[at]:.6g} s, {g[at]:.6g} S. A copy is not a repeat and would make the read "
            "noise too small: remove copies, or give each reading the time at which it was taken."
        )


def _visits(time_s: NDArray[np.float64], taken: NDArray[np.bool_]) -> NDArray[np.int64]:
    visit = np.zeros(time_s.shape, np.int64)
    start = time_s[:, 0].copy()
    for k in range(1, time_s.shape[1]):
        new = taken[:, k] & (time_s[:, k] > VISIT * start)
        start = np.where(new, time_s[:, k], start)
        visit[:, k] = visit[:, k - 1] + new
    return visit


def _enough(found: Measurements) -> None:
    levels, counts = np.unique(found.target, return_counts=True)
    if len(levels) < TARGETS:
        raise DataError(
            f"target_siemens: one target ({levels[0]:.4g} S), expected at least {TARGETS}. The "
            "programming error depends on the state: measure the ends of the window too."
        )
    few = np.flatnonzero(counts < CELLS_PER_TARGET)
    if len(few):
        listed = ", ".join(f"{counts[i]} at {levels[i] * 1e6:.4g} uS" for i in few[:4])
        raise DataError(
            f"too few cells at {len(few)} of {len(levels)} targets ({listed}), expected at least "
            f"{CELLS_PER_TARGET} each. Measure more cells, or write them to fewer targets."
        )
    _no_hole(levels)
    _enough_times(found)
    visit = found.visits
    repeats = found.taken.sum(1) - visit.max(1) - 1
    good = int((repeats >= REPEATS_PER_CELL).sum())
    if good < CELLS_PER_TARGET:
        raise DataError(
            f"read noise: {good} of {len(repeats)} cells have repeated reads ({REPEATS_PER_CELL} "
            f"beside the first, times within {VISIT - 1:.0%}), expected at least "
            f"{CELLS_PER_TARGET} cells. Read each cell several times in a row at each visit, every "
            "reading with its own time_s."
        )


def _no_hole(levels: NDArray[np.float64]) -> None:
    for a, b in pairwise(levels):
        if b - a > (levels[-1] - levels[0]) / 2 and b > HOLE_RATIO * (1 + 1e-6) * a:
            raise DataError(
                f"target_siemens: no target between {a * 1e6:.4g} and {b * 1e6:.4g} uS, more than "
                f"half the window and a factor {HOLE_RATIO:g}. The write error in between is "
                "unknown: measure a target there, or leave out the far one."
            )


def _enough_times(found: Measurements) -> None:
    last = float(found.time_s[found.taken].max())
    if last < SPAN * found.first_s:
        times = len(np.unique(found.time_s))
        raise DataError(
            f"time_s: {times} distinct time{'s' * (times > 1)} from {found.first_s:.4g} s to "
            f"{last:.4g} s, expected a span of at least {SPAN:g} in ratio. Relaxation goes with "
            "the logarithm of time: read the same cells again later, e.g. at 1, 10, 100 and 1000 s."
        )
    visits = found.visits.max(1) + 1
    few = np.flatnonzero(visits < VISITS_PER_CELL)
    if len(few):
        raise DataError(
            f"time_s: {len(few)} cells were read at fewer than {VISITS_PER_CELL} times (cell "
            f"{found.names[few[0]]!r} at {visits[few[0]]}; times within {VISIT - 1:.0%} count as "
            "one). Read every cell at three or more times, or leave these cells out."
        )


def _agreeing(found: Measurements) -> None:
    for level in found.levels:
        first = float(np.median(found.conductance[found.target == level, 0]))
        if abs(first / level - 1) > LARGEST_BIAS:
            raise DataError(
                f"target_siemens and conductance_siemens contradict each other: the cells of "
                f"{level:.4g} S first read {first:.4g} S (median). Expected within "
                f"{LARGEST_BIAS:.0%}: are both columns in siemens, and the targets of these cells?"
            )
