"""From readings of several writes to the parameters of a crossbar twin.

Regression of all writes at once, then the noise from what is left over, then the
regression again with the noise as weight; gains, write error and faults from what
was written against what was found; drift from reads after waits.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from substrates.memristor.twindrift import Variance, drift
from substrates.memristor.twinpairs import Pairs, compared, unwritten
from twin.errors import DataError
from twin.observations import Observations
from twin.solving import CurveFit, LinearFit, curve, linear
from twin.twinmodel import Direction, Estimates, Floats, Parameter

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

MARGIN_SIGMAS = 4.0
"""Readings predicted nearer to an end of the range than this are left out: chosen by
the prediction, since choosing by the reading would bias what is left."""

OUTLIER_SIGMAS = 5.0
"""Readings further off are left out, one in 2 million of Gaussian ones: a converter behind one
of several arrays clips unseen in their sum, a pulse of light hits, a bit flips."""

BINS = 120
ROUNDS, MOST_ROUNDS = 3, 8
SETTLED = 0.9999
"""Share of readings that are used, or not, as in the round before."""

FEW = 2
"""Passes per input below which a write is not looked at."""

NOISE = (
    Parameter(name="additive_noise", unit="full scale", low=0.0, high=1.0),
    Parameter(name="read_noise", unit="1", low=0.0, high=1.0),
)


class Left(NamedTuple):
    """Of each reading of a live column: what the fit says, and what it took of its noise."""

    mean: Floats
    leverage: Floats


class Writes(NamedTuple):
    """weights, errors: (writes, inputs, live columns), gain included. number: of each
    write, counted as the recording does. offset, offset_error: (live columns,)."""

    number: list[int]
    weights: Floats
    errors: Floats
    offset: Floats
    offset_error: Floats
    unidentified: tuple[Direction, ...]


class ChipFit:
    """One fit; seen: the table of a recording. unit: of a reading. floor: as ChipSheet."""

    def __init__(self, seen: Observations, unit: float, floor: float) -> None:
        self._seen, self._unit, self._floor = seen, unit, floor
        self._stuck = (seen.value == seen.value[0]).all(0)
        if self._stuck.all():
            raise DataError(
                "every column always gave the same code, so there is nothing to fit. Check the "
                "drive and the range of the device."
            )
        self._live: Ints = np.flatnonzero(~self._stuck).astype(np.int64)
        self._main = _main_rows(seen)
        self._inputs = seen.drive.shape[1]
        rows = self._main
        self._x, self._y = seen.drive[rows], seen.value[rows][:, self._live]
        self._write = seen.write[rows]
        self._numbers = self._told()
        self._rows = [self._write == number for number in self._numbers]

    def estimates(self) -> Estimates:
        used = np.ones_like(self._y)
        variance: Floats | None = None
        noise: CurveFit | None = None
        pairs: Pairs | None = None
        for turn in range(MOST_ROUNDS):
            weight = used if variance is None else used / variance
            fit, writes = self._regress(weight, variance)
            pairs = self._pairs(writes)
            noise, variance = self._noise(fit, writes, pairs, used)
            before, used = used, self._inside(fit, variance) * self._near(fit, variance)
            if turn + 1 >= ROUNDS and (before == used).mean() > SETTLED:
                break
        assert noise is not None and pairs is not None
        moved = drift(
            self._seen, self._live, writes.number, writes.weights, writes.errors, writes.offset,
            variance_of=self._variance_of(noise, pairs), unit=self._unit, main=self._main,
        )  # fmt: skip
        return self._joined(writes, pairs, noise, moved)

    # ---- the regression ----------------------------------------------------

    def _told(self) -> list[int]:
        """Writes that enough passes tell of; the last in any case."""
        numbers, counts = np.unique(self._write, return_counts=True)
        return [int(n) for n, c in zip(numbers, counts, strict=True)
                if c >= FEW * self._inputs or n == numbers[-1]]  # fmt: skip

    def _regress(self, weight: Floats, noise: Floats | None) -> tuple[Left, Writes]:
        """Each write has weights of its own; all share the columns' offsets."""
        names = [*(f"held_weights[{i}]" for i in range(self._inputs)), "column_offset"]
        fits = []
        for rows in self._rows:
            x = np.concatenate([self._x[rows] / self._unit, np.ones((rows.sum(), 1))], 1)
            own = None if noise is None else noise[rows]
            fits.append(linear(x, self._y[rows], weight[rows], names, noise=own))
        writes = _sharing_offset(self._numbers, fits)
        mean, leverage = np.zeros((2, *self._y.shape))
        for rows, fit, weights in zip(self._rows, fits, writes.weights, strict=True):
            mean[rows] = self._x[rows] @ weights / self._unit + writes.offset
            leverage[rows] = fit.leverage
        return Left(mean, leverage), writes

    def _inside(self, fit: Left, variance: Floats) -> Floats:
        """1 for readings that are predicted to lie inside the range, else 0."""
        port, step = self._seen.capabilities.readings[0], self._seen.step[self._live]
        margin = MARGIN_SIGMAS * np.sqrt(variance)
        low, high = fit.mean - margin, fit.mean + margin
        free = (low > port.code_low * step) & (high < port.code_high * step)
        # A column that is always near an end has nothing better than what it has.
        last = free[self._rows[-1]]
        enough = last.sum(0) > FEW * self._inputs
        return np.where(enough, free, ~self._seen.at_end[self._main][:, self._live]).astype(float)

    def _near(self, fit: Left, variance: Floats) -> Mask:
        """Whether a reading is as near to the fit as noise leaves it.

        Outliers raise the variance that they are judged by: so it takes several rounds.
        """
        return np.asarray((self._y - fit.mean) ** 2 < OUTLIER_SIGMAS**2 * variance)

    # ---- noise ---------------------------------------------------------------

    def _power(self, writes: Writes, gain: Floats) -> Floats:
        from substrates.memristor.twinmodel import noise_power

        power = np.zeros_like(self._y)
        for number, weights in zip(writes.number, writes.weights, strict=True):
            rows = self._write == number
            power[rows] = noise_power(self._x[rows], weights, gain, self._floor, self._unit)
        return power

    def _noise(
        self, fit: Left, writes: Writes, pairs: Pairs, used: Floats
    ) -> tuple[CurveFit, Floats]:
        """additive_noise and read_noise from squared residuals, binned by noise power."""
        power = self._power(writes, pairs.gain)
        left = (self._y - fit.mean) ** 2
        known = np.isin(self._write, writes.number)[:, None]
        # Of one drive that comes again and again, as the zero one does, rounding
        # is no noise where noise is below half a code: it is the same each time.
        same = self._x.max(1) == 0
        step2 = float((self._seen.step[self._live] ** 2).mean())
        if same.any() and float(left[same].mean()) < 0.25 * step2:
            known &= ~same[:, None]
        sure = (used > 0) & (fit.leverage < 0.9) & known
        found = variance_law(power[sure], left[sure] / (1 - fit.leverage[sure]))
        additive, relative = found.values
        return found, np.maximum(additive**2 + relative**2 * power, 1e-12)

    def _variance_of(self, noise: CurveFit, pairs: Pairs) -> Variance:
        from substrates.memristor.twinmodel import noise_power

        additive, relative = noise.values

        def variance(drive: Floats, weights: Floats) -> Floats:
            power = noise_power(drive, weights, pairs.gain, self._floor, self._unit)
            return additive**2 + relative**2 * power

        return variance

    # ---- what was written against what was found -----------------------------

    def _pairs(self, writes: Writes) -> Pairs:
        asked = [n for n in writes.number if n >= 1]
        if not asked:
            return unwritten(self._inputs, len(self._live))
        shape = (self._inputs, len(self._stuck))
        settings = np.stack([self._seen.settings[n - 1].reshape(shape) for n in asked])
        at = [writes.number.index(n) for n in asked]
        return compared(settings[:, :, self._live], writes.weights[at], writes.errors[at])

    # ---- together --------------------------------------------------------------

    def _joined(
        self, writes: Writes, pairs: Pairs, noise: CurveFit, moved: dict[str, tuple[float, float]]
    ) -> Estimates:
        cells, columns = (self._inputs, len(self._stuck)), (len(self._stuck),)

        def wide(live: Floats, shape: tuple[int, ...], rest: float) -> Floats:
            out = np.full(shape, rest)
            out[..., self._live] = live
            return out

        level = np.where(self._stuck, self._seen.value[0], 0.0)
        scalars = {
            "additive_noise": (noise.values[0], noise.errors[0]),
            "read_noise": (noise.values[1], noise.errors[1]),
            "write_error": (pairs.write_error, pairs.write_error_error),
            **{name: moved[name] for name in ("drift_exponent", "drift_spread")},
        }
        values = {
            "held_weights": wide(writes.weights[-1], cells, 0.0),
            "held_drift": np.zeros(cells),
            "column_gain": wide(pairs.gain, columns, 1.0),
            "column_offset": wide(writes.offset, columns, 0.0),
            "cell_fault": wide(pairs.fault, cells, 0.0),
            "cell_level": wide(pairs.level, cells, 0.0),
            "column_stuck": self._stuck.astype(np.float64),
            "column_level": level,
            **{name: np.array(value) for name, (value, _) in scalars.items()},
        }
        errors = {
            "held_weights": wide(writes.errors[-1], cells, np.nan),
            "column_gain": wide(pairs.gain_error, columns, np.nan),
            "column_offset": wide(writes.offset_error, columns, np.nan),
            **{name: np.array(error) for name, (_, error) in scalars.items()},
        }
        return Estimates(
            values=values,
            errors=errors,
            covariance={tuple(p.name for p in NOISE): noise.covariance},
            unidentified=(
                *writes.unidentified, *pairs.unidentified, *noise.unidentified,
                *_undrifted(moved),
            ),
            flags={
                "stuck columns": tuple(int(c) for c in np.flatnonzero(self._stuck)),
                "faulty cells": tuple(int(c) for c in np.flatnonzero(values["cell_fault"])),
            },
        )  # fmt: skip


def _sharing_offset(numbers: list[int], fits: list[LinearFit]) -> Writes:
    """The joint solution of fits that have an offset each, where there is but one."""
    variance = np.stack([fit.errors[-1] ** 2 for fit in fits])
    good = np.isfinite(variance) & (variance > 0)
    share = np.where(good, 1 / np.where(good, variance, 1.0), 0.0)
    total = share.sum(0)
    offsets = np.stack([fit.coefficients[-1] for fit in fits])
    single = total == 0
    joint = np.where(single, offsets[-1], (share * offsets).sum(0) / np.where(single, 1, total))
    error2 = np.where(single, np.nan, 1 / np.where(single, 1.0, total))
    weights, errors = [], []
    for fit, own2, known in zip(fits, variance, good, strict=True):
        pull = np.where(known, fit.with_last[:-1] / np.where(known, own2, 1.0), 0.0)
        weights.append(fit.coefficients[:-1] + pull * (joint - fit.coefficients[-1]))
        spread2 = fit.errors[:-1] ** 2 - pull**2 * np.where(known, own2 - error2, 0.0)
        errors.append(np.sqrt(np.maximum(spread2, 0.0)))
    return Writes(
        numbers, np.stack(weights), np.stack(errors), joint, np.sqrt(error2),
        fits[-1].unidentified,
    )  # fmt: skip


def _undrifted(moved: dict[str, tuple[float, float]]) -> tuple[Direction, ...]:
    if not np.isnan(moved["drift_exponent"][1]):
        return ()
    why = "no reads long enough after a write; taken as 0"
    return tuple(Direction({name: 1.0}, why) for name in ("drift_exponent", "drift_spread"))


def _main_rows(seen: Observations) -> Mask:
    """Of each write the rows of its largest stretch without a wait."""
    main = np.zeros(len(seen), bool)
    for write in np.unique(seen.write):
        own = seen.write == write
        rests, counts = np.unique(seen.rest[own], return_counts=True)
        main |= own & (seen.rest == rests[counts.argmax()])
    return main


def variance_law(power: Floats, squares: Floats) -> CurveFit:
    """additive^2 + relative^2 power = mean of `squares`, by bins of equal counts."""
    order = np.argsort(power, kind="stable")
    bins = [b for b in np.array_split(order, min(BINS, max(2, len(order) // 30))) if len(b)]
    x = np.array([power[b].mean() for b in bins])
    y = np.array([squares[b].mean() for b in bins])
    count = np.array([len(b) for b in bins])
    top = max(float(y.mean()), 1e-18)
    law = np.full(len(x), top)
    scale = (np.sqrt(top), np.sqrt(top / max(float(x.mean()), 1e-18)))
    start = np.array(scale) / np.sqrt(2)
    for _ in range(3):
        sigma = law * np.sqrt(2 / count)
        found = curve(NOISE, partial(_off_law, x, y, sigma), start, scale=scale)
        # At 0 the slope of a square vanishes, and no step would leave it again.
        start = np.maximum(found.values, 0.05 * np.array(scale))
        law = np.maximum(start[0] ** 2 + start[1] ** 2 * x, 1e-6 * top)
    return found


def _off_law(x: Floats, y: Floats, sigma: Floats, p: Floats) -> Floats:
    return (p[0] ** 2 + p[1] ** 2 * x - y) / sigma
