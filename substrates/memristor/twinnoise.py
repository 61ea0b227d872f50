"""The noise law of a chip: additive_noise^2 + read_noise^2 times the power of its cells.

From repeats of a drive where there are enough, so that what the law of the mean misses is
not taken for noise; from what the fit leaves over where there are none.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twin.errors import DataError
from twin.rounding import hidden
from twin.solving import CurveFit, curve
from twin.twinmodel import Direction, Floats, Parameter

BINS, FEWEST_A_BIN = 120, 30
FEWEST_REPEATS = 100
"""Degrees of freedom, over all columns, below which repeats do not tell the noise."""

SIGMAS = 5.0
"""Standard errors at which a difference is told."""

MISFIT_SHARE = 0.05
"""Of the noise's variance; what is left over beyond it is told."""

TOGETHER = 0.02
"""Correlation of the columns' noise that is told."""

NOISE = (
    Parameter(name="additive_noise", unit="full scale", low=0.0, high=1.0),
    Parameter(name="read_noise", unit="1", low=0.0, high=1.0),
)
Ints = npt.NDArray[np.int64]


class Squares(NamedTuple):
    """Squares of deviations, the noise power they came with and their degrees of
    freedom, (k,) each. coded: step^2 of codes whose rounding repeats itself; 0: none."""

    power: Floats
    square: Floats
    freedom: Floats
    coded: float = 0.0


class Repeats(NamedTuple):
    """Of drives seen again in one state: row of each, (groups,); variance and degrees of
    freedom, (groups, columns); deviations from their mean, (rows, columns), standardised
    to what many shots would show."""

    row: Ints
    variance: Floats
    freedom: Floats
    deviation: Floats


def repeats(group: Ints, value: Floats, used: Floats) -> Repeats:
    """value, used: (n, columns); used 0 leaves a reading out."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=group[order[0]] - 1))
    rows = np.diff(first, append=len(order))
    weight, sorted_ = used[order], value[order] - value.mean(0)
    count = np.add.reduceat(weight, first)
    mean = np.add.reduceat(weight * sorted_, first) / np.maximum(count, 1)
    off = weight * (sorted_ - np.repeat(mean, rows, 0))
    freedom = np.maximum(count - 1, 0.0)
    variance = np.add.reduceat(off**2, first) / np.maximum(freedom, 1)
    again = rows > 1
    many = np.repeat(np.maximum(count, 2), rows, 0)
    deviation = (off / np.sqrt(1 - 1 / many))[np.repeat(again, rows)]
    return Repeats(order[first[again]], variance[again], freedom[again], deviation)


def variance_law(seen: Squares) -> CurveFit:
    """additive^2 + relative^2 power = mean square, by bins of equal counts.

    DataError where there is nothing to fit it to.
    """
    if not len(seen.power):
        raise DataError(
            "no reading is left to tell the noise by: every drive determines the fit by itself. "
            "Record more different drives in one state, some of them repeatedly."
        )
    bins = _bins(seen)
    x, y, count = bins
    top = max(float((y * count).sum() / count.sum()), seen.coded / 12, 1e-18)
    low = np.sqrt(seen.coded / 12)
    scale = np.array([np.sqrt(top), np.sqrt(top / max(float(x.mean()), 1e-18))])
    start, law = scale / np.sqrt(2), np.full(len(x), top)
    parameters = (replace(NOISE[0], low=low), NOISE[1])
    for _ in range(3):
        sigma = law * np.sqrt(2 / count)
        found = curve(parameters, partial(_off_law, bins, seen.coded, sigma), start, scale=scale)
        # At 0 the slope of a square vanishes, and no step would leave it again.
        start = np.maximum(found.values, 0.05 * scale)
        law = np.maximum(_law(start, x, seen.coded), 1e-3 * top)
    return replace(found, covariance=found.covariance * _restless(seen, found.values))


def _restless(seen: Squares, p: Floats) -> float:
    """By how much more the squares of repeats scatter than those of a normal law: below half
    a code of noise, a drive's place between two codes makes its shots all alike, or not."""
    if seen.coded == 0:
        return 1.0
    law = np.maximum(_law(p, seen.power, seen.coded), 1e-300)
    scatter = float((seen.freedom**2 * (seen.square - law) ** 2).sum())
    return max(1.0, scatter / float((2 * seen.freedom * law**2).sum()))


def from_repeats(again: Repeats, power: Floats, step2: float, zero: npt.NDArray[np.bool_]) -> (
    Squares | None
):  # fmt: skip
    """Of repeats, by group and column; None where they are too few. power: as variance.
    step2: step^2 of a code, 0 of a reading without. zero: groups without drive."""
    known = again.freedom > 0
    # Of no drive all shots have one place between two codes, however many they are.
    if zero.any() and float(again.variance[zero].mean()) < 0.25 * step2:
        known = known & ~zero[:, None]
    if again.freedom[known].sum() < FEWEST_REPEATS or known.any(1).sum() < 2:
        return None
    return Squares(power[known], again.variance[known], again.freedom[known], step2)


def misfit(found: CurveFit, left: Squares) -> tuple[Direction, ...]:
    """Says so where residuals are larger than the noise of repeats explains."""
    additive, relative = found.values
    power, freedom = float(left.power.mean()), float(left.freedom.sum())
    noise, seen2 = additive**2 + relative**2 * power, float(left.square.mean())
    slope = np.array([2 * additive, 2 * relative * power])
    error2 = float(slope @ np.nan_to_num(found.covariance) @ slope) + 2 * seen2**2 / freedom
    beyond = seen2 - noise
    if not (beyond > SIGMAS * np.sqrt(error2) and beyond > MISFIT_SHARE * noise):
        return ()
    why = (
        f"residuals have {seen2 / noise:.2f} times the variance of repeated readings. The device "
        "follows a law that the model does not know (cells that bend, resistive lines, a "
        f"converter's errors), and the twin's mean is off by {np.sqrt(beyond):.2g} of the full "
        "scale, RMS"
    )
    return (Direction({"held_weights": 1.0}, why),)


def together(again: Repeats) -> tuple[Direction, ...]:
    """Says so where the columns' noise goes up and down together, as of one reference."""
    columns = again.deviation.shape[1]
    spread = np.sqrt((again.deviation**2).mean(0)) if len(again.deviation) else np.zeros(columns)
    alive = spread > 0
    if alive.sum() < 2:
        return ()
    z = again.deviation[:, alive] / spread[alive]
    width = z.shape[1]
    shared = z.sum(1) ** 2 / width
    correlation = float((shared.mean() - 1) / (width - 1))
    error = float(np.sqrt(shared.var() / len(shared)) / (width - 1))
    if not (correlation > SIGMAS * error and correlation > TOGETHER):
        return ()
    why = (
        f"the columns' noise goes up and down together (correlation {correlation:.2f}), as of one "
        'reference column (encoding "offset") or one supply; the twin\'s columns are independent, '
        "and read_noise is not that of a cell"
    )
    return (Direction({"read_noise": 1.0}, why),)


def no_repeats() -> Direction:
    why = "too few repeated drives, so that what the law of the mean misses counts as noise"
    return Direction({"additive_noise": 1.0, "read_noise": 1.0}, why)


def _bins(seen: Squares) -> tuple[Floats, Floats, Floats]:
    """Power, mean square and degrees of freedom of bins."""
    order = np.argsort(seen.power, kind="stable")
    count = min(BINS, max(2, int(seen.freedom.sum()) // FEWEST_A_BIN))
    parts = [b for b in np.array_split(order, count) if len(b)]
    freedom = np.array([seen.freedom[b].sum() for b in parts])
    x = np.array([np.average(seen.power[b], weights=seen.freedom[b]) for b in parts])
    y = np.array([np.average(seen.square[b], weights=seen.freedom[b]) for b in parts])
    return x, y, freedom


def _law(p: Floats, x: Floats, coded: float) -> Floats:
    law = p[0] ** 2 + p[1] ** 2 * x
    return law - _unseen(law, coded)


def _unseen(variance: Floats, coded: float) -> Floats:
    """What repeats do not show of `variance`, which includes that of rounding: below half a
    code of noise all shots round alike."""
    if coded == 0:
        return np.zeros_like(variance)
    return coded * hidden(np.maximum(variance / coded - 1 / 12, 0.0))


def _off_law(bins: tuple[Floats, Floats, Floats], coded: float, sigma: Floats, p: Floats) -> Floats:
    return (_law(p, bins[0], coded) - bins[1]) / sigma
