"""From readings of several writes to the parameters of a crossbar twin.

Regression of all writes at once, weighted by what it leaves over, in a few rounds; then
drift from reads after waits, what was written against what was found, and the noise from
repeats.
"""

from __future__ import annotations

import numpy as np

from substrates.memristor.twincells import cells_held, noise_power
from substrates.memristor.twincolumns import lifeless
from substrates.memristor.twindrift import Drift, Readout, drift
from substrates.memristor.twinjoined import Fitted, joined
from substrates.memristor.twinnoise import (
    Squares,
    from_repeats,
    misfit,
    no_repeats,
    repeats,
    together,
    variance_law,
)
from substrates.memristor.twinpairs import Pairs, compared, unwritten
from substrates.memristor.twinregress import regression
from substrates.memristor.twinrows import FEW, Ints, Mask, log_age, main_rows, stretches
from substrates.memristor.twinwrites import Left, Writes, sharing_offset, terms
from twin.errors import DataError
from twin.observations import Observations
from twin.solving import CurveFit
from twin.twinmodel import Direction, Estimates, Floats

MARGIN_SIGMAS = 4.0
"""Readings predicted nearer to an end of the range than this are left out: chosen by
the prediction, since choosing by the reading would bias what is left."""

OUTLIER_SIGMAS = 5.0
"""Readings further off are left out, one in 2 million of Gaussian ones: a converter behind one
of several arrays clips unseen in their sum, a pulse of light hits, a bit flips."""

MOST_LEFT_OUT = 0.02
"""Share of a write's readings that may be so: more are no accident."""

HIGHEST_LEVERAGE = 0.9
"""Readings that determine the fit by more than this say nothing of the noise."""

ROUNDS, MOST_ROUNDS = 3, 8
SETTLED = 0.9999
"""Share of readings that are used, or not, as in the round before."""


class ChipFit:
    """One fit; seen: the table of a recording. unit: of a reading. floor: as ChipSheet."""

    def __init__(self, seen: Observations, unit: float, floor: float) -> None:
        self._seen, self._unit, self._floor = seen, unit, floor
        self._inputs = seen.drive.shape[1]
        self._stretch = stretches(seen)
        self._main = main_rows(seen, self._stretch)
        self._x, self._write = seen.drive[self._main], seen.write[self._main]
        self._numbers = self._told()
        self._rows = [self._write == number for number in self._numbers]
        self._keep((seen.value == seen.value[0]).all(0))

    def _keep(self, stuck: Mask) -> None:
        if stuck.all():
            raise DataError(
                "no column follows its drive: each gives one code, or noise alone. Check the "
                "drive, what is written, and the range of the device."
            )
        self._stuck = stuck
        self._live = np.flatnonzero(~stuck).astype(np.int64)
        self._y = self._seen.value[self._main][:, self._live]

    def fitted(self) -> Fitted:
        self._drop_lifeless()
        used, far = np.ones_like(self._y), np.zeros(self._y.shape, bool)
        variance, share = None, np.ones((len(self._y), 1))
        for turn in range(MOST_ROUNDS):
            fit, writes = self._regress(used * share, variance)
            share = self._share(fit)
            pairs = self._pairs(writes, None)
            rest = variance_law(self._left_over(fit, writes, pairs, used))
            variance = self._variance(rest, self._power(writes, pairs))
            inside = self._inside(fit, variance)
            far = (inside > 0) & ~self._near(fit, variance)
            before, used = used, inside * ~far
            if turn + 1 >= ROUNDS and (before == used).mean() > SETTLED:
                break
        left_out = self._left_out(far)
        moved = self._drift(writes, pairs, rest)
        pairs = self._pairs(writes, moved)
        noise, told = self._noise(fit, writes, pairs, used)
        return Fitted(writes, pairs, noise, moved, float(self._ages()[-1]), left_out, told)

    # ---- the regression ----------------------------------------------------

    def _told(self) -> list[int]:
        """Writes that enough passes tell of; the last in any case."""
        numbers, counts = np.unique(self._write, return_counts=True)
        return [int(n) for n, c in zip(numbers, counts, strict=True)
                if c >= FEW * self._inputs or n == numbers[-1]]  # fmt: skip

    def _drop_lifeless(self) -> None:
        """Columns that do not follow their drive count as stuck, though a code flickers."""
        fit, _ = self._regress(np.ones_like(self._y), None)
        wanted = [
            self._x[rows] @ self._setting(number)[:, self._live] / self._unit
            for number, rows in zip(self._numbers, self._rows, strict=True)
            if number >= 1
        ]
        dead = lifeless(self._y, fit.mean, self._rows, wanted, self._inputs)
        if dead.any():
            stuck = self._stuck.copy()
            stuck[self._live[dead]] = True
            self._keep(stuck)

    def _regress(self, used: Floats, variance: Floats | None) -> tuple[Left, Writes]:
        """Each write has weights of its own; all share the columns' offsets."""
        known = variance is not None
        weight = used if variance is None else used / variance
        fits = []
        for rows in self._rows:
            x = np.concatenate([self._x[rows] / self._unit, np.ones((rows.sum(), 1))], 1)
            names = terms(self._inputs)
            fits.append(regression(x, self._y[rows], weight[rows], names, known=known))
        writes = sharing_offset(self._numbers, fits)
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
        near = (self._y - fit.mean) ** 2 < OUTLIER_SIGMAS**2 * variance
        return np.asarray(near | (fit.leverage > HIGHEST_LEVERAGE) | ~self._known()[:, None])

    def _known(self) -> Mask:
        return np.isin(self._write, self._numbers)

    def _left_out(self, far: Mask) -> dict[int, Ints]:
        """Column of each reading of a write that is off; DataError if they are no accidents."""
        for number, rows in zip(self._numbers, self._rows, strict=True):
            share = float(far[rows].mean())
            if share > MOST_LEFT_OUT:
                raise DataError(
                    f"write {number}: {100 * share:.1f} % of the readings are further from any "
                    f"linear chip than {OUTLIER_SIGMAS:g} sigma of noise (limit "
                    f"{100 * MOST_LEFT_OUT:g} %). The device changed, was written unseen, or "
                    "clips. Record it again in one state, within its range."
                )
        return {
            number: self._live[np.nonzero(far[rows])[1]]
            for number, rows in zip(self._numbers, self._rows, strict=True)
        }

    # ---- noise ---------------------------------------------------------------

    def _power(self, writes: Writes, pairs: Pairs) -> Floats:
        power = np.zeros_like(self._y)
        for rows, weights in zip(self._rows, writes.weights, strict=True):
            power[rows] = self._power_of(self._x[rows], weights, pairs)
        return power

    def _power_of(self, drive: Floats, weights: Floats, pairs: Pairs) -> Floats:
        cells = cells_held(weights / pairs.gain, pairs.fault, pairs.level)
        return noise_power(drive, cells, pairs.gain, floor=self._floor, unit=self._unit)

    @staticmethod
    def _variance(law: CurveFit, power: Floats) -> Floats:
        additive, relative = law.values
        return np.maximum(additive**2 + relative**2 * power, 1e-12)

    def _left_over(self, fit: Left, writes: Writes, pairs: Pairs, used: Floats) -> Squares:
        """Squared residuals, without what the fit took of them."""
        left = (self._y - fit.mean) ** 2
        known = self._known()[:, None] & ~pairs.deaf
        known &= self._share(fit) == 1
        sure = (used > 0) & (fit.leverage < HIGHEST_LEVERAGE) & known
        square = left[sure] / (1 - fit.leverage[sure])
        return Squares(self._power(writes, pairs)[sure], square, np.ones(len(square)))

    def _share(self, fit: Left) -> Floats:
        """What each row counts, (n, 1). Of no drive all shots round alike where noise is below
        half a code: together they tell as much as one."""
        dark = self._dark()
        alike = (
            dark.sum() > 1
            and float(((self._y - fit.mean)[dark] ** 2).mean()) < 0.25 * self._step2()
        )
        return np.where(dark & alike, 1 / max(1, int(dark.sum())), 1.0)[:, None]

    def _dark(self) -> Mask:
        return np.asarray((self._x == 0).all(1))

    def _step2(self) -> float:
        return float((self._seen.step[self._live] ** 2).mean())

    def _noise(
        self, fit: Left, writes: Writes, pairs: Pairs, used: Floats
    ) -> tuple[CurveFit, tuple[Direction, ...]]:
        """From repeats, or from residuals where they are too few; and what to say of it."""
        left = self._left_over(fit, writes, pairs, used)
        known = self._known()
        again = repeats(
            self._seen.group[self._main][known], self._y[known], used[known] * ~pairs.deaf
        )
        row = np.flatnonzero(known)[again.row]
        coded = self._step2() if self._seen.capabilities.readings[0].is_coded else 0.0
        power = self._power(writes, pairs)[row]
        squares = from_repeats(again, power, coded, self._dark()[row])
        if squares is None:
            return variance_law(left), (no_repeats(),)
        noise = variance_law(squares)
        return noise, (*misfit(noise, left), *together(again))

    # ---- rest, and what was written against what was found -----------------

    def _ages(self) -> Floats:
        """Of each write ln of the age it was read at."""
        age = self._seen.age_s[self._main]
        return np.array([log_age(age[rows]) for rows in self._rows])

    def _drift(self, writes: Writes, pairs: Pairs, rest: CurveFit) -> Drift:
        def variance(drive: Floats, weights: Floats) -> Floats:
            return self._variance(rest, self._power_of(drive, weights, pairs))

        return drift(
            self._seen, self._stretch, self._main, writes.number, writes.weights, writes.errors,
            Readout(self._live, writes.offset, variance, self._unit),
        )  # fmt: skip

    def _setting(self, number: int) -> Floats:
        """What a write, from 1 on, asked for: (inputs, outputs)."""
        return self._seen.settings[number - 1].reshape(self._inputs, -1)

    def _pairs(self, writes: Writes, moved: Drift | None) -> Pairs:
        at = [k for k, number in enumerate(writes.number) if number >= 1]
        if not at:
            return unwritten(self._inputs, len(self._live))
        settings = np.stack([self._setting(writes.number[k]) for k in at])[:, :, self._live]
        ln = self._ages()[at]
        kept = np.ones(len(at)) if moved is None else moved.kept(ln)
        drifted2 = np.zeros(len(at)) if moved is None else 2 * (moved.spread * ln) ** 2
        found, errors = (a[at] / kept[:, None, None] for a in (writes.weights, writes.errors))
        return compared(settings, found, errors, drifted2)

    def estimates(self) -> Estimates:
        found = self.fitted()  # settles which columns are live
        return joined(self._seen, self._live, found)
