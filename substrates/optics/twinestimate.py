"""From frames of random drives to the parameters of an optical twin.

Black level from dark frames, or from all frames together; rows pixel by pixel; gain and
read noise from shots of equal drives (photon transfer); decorrelation from the same
drives over time. What the law does not explain is left out, or named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from substrates.optics.twinblack import (
    FEWEST_CHANNELS,
    LARGEST_ERROR,
    Black,
    Shift,
    dark_level,
    shift,
)
from substrates.optics.twinjudge import (
    Law,
    answering,
    excess,
    explained,
    flickering,
    inside,
    misfit,
)
from substrates.optics.twinmoving import RATE, Motion, decorrelation
from substrates.optics.twinnoise import GAIN, READ, Repeats, bursts, photon_transfer
from substrates.optics.twinrows import COARSE_ROWS, finished, nearer, refined, started
from twin.errors import DataError
from twin.key import Key
from twin.observations import Observations
from twin.solving import CurveFit
from twin.twinmodel import Direction, Estimates, Floats

Complex = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FEWEST_PER_UNKNOWN = 2.0
SHUTTER = "shutter"
STARTING_NOISE = (1e-6, 1e-3)
ROUNDS = 3
"""Times that readings are judged by the fit and left out, or taken in again."""

SURELY = 3.0
"""Standard errors from which a rate counts as motion, if the residuals say so too."""

BLACK_STEPS, BLACK_NEAR, BLACK_SURE = 25, 0.5, 0.02
"""Steps of a black level that is fitted with the rows, at most. Of its standard error: a step
below which all frames are taken, and one that is the last."""


@dataclass
class _Fit:
    """Live pixels of a fit. used: (n, pixels), readings that count; near: those that some
    noise explains. rows: (channels, pixels). errors: (2, channels, pixels). noise: (2,),
    variance of a reading is noise[0] + noise[1] signal, rounding included. transfer: what
    it is from; None before the rows. repeated: from repeats, not from what rows leave."""

    pixels: Ints
    used: Mask
    near: Mask
    black: Black
    rows: Complex
    errors: Floats
    noise: Floats
    transfer: CurveFit | None = None
    repeated: bool = False


class RigFit:
    """One fit; field: (n, channels), the light of each row of `seen`. mean: (channels,),
    light whose field fixes the phase of a row."""

    def __init__(self, seen: Observations, field: Complex, mean: Complex, key: Key) -> None:
        self._key, self._mean = key, mean
        shutter = seen.dials.get(SHUTTER, np.ones(len(seen)))
        self._dark, lit = seen.rows(shutter == 0), shutter == 1
        self._seen, self._field = seen.rows(lit), field[lit]
        self._step = float(np.median(seen.step))
        self._high = self._step * seen.capabilities.readings[0].code_high
        unknowns = 2 * field.shape[1]
        if len(self._seen) < FEWEST_PER_UNKNOWN * unknowns:
            raise DataError(
                f"expected {int(FEWEST_PER_UNKNOWN * unknowns)} passes with light or more for "
                f"{unknowns} unknowns of a pixel, got {len(self._seen)}. Record a longer probe."
            )
        value = self._seen.value
        self._live: Ints = np.flatnonzero((value != value[0]).any(0)).astype(np.int64)

    def estimates(self) -> Estimates:
        known, fit = self._answering()
        self._settle(fit, known)
        if not self._keep_answering(fit):
            return self.estimates()
        return self._joined(fit, self._power(fit), self._intensity(fit))

    def _answering(self) -> tuple[Black | None, _Fit]:
        """A first fit of the pixels that follow the drives, and the level of dark frames."""
        while True:
            if not len(self._live):
                raise DataError("no pixel followed the drives. Check the light and the exposure.")
            known = dark_level(self._dark, self._live, self._step)
            fit = self._begun(known or Black(0.0, np.nan))
            if self._keep_answering(fit):
                return known, fit

    def _keep_answering(self, fit: _Fit) -> bool:
        """Leave out live pixels that do not follow the drives; whether all do."""
        unknowns = 2 * len(fit.rows) - 2
        answers = answering(self._intensity(fit), fit.used, self._power(fit), unknowns)
        self._live = self._live[answers]
        return bool(answers.all())

    # ---- the fit -------------------------------------------------------------

    def _begun(self, black: Black) -> _Fit:
        """Rows of the live pixels from all readings below saturation."""
        value, at_end = self._seen.value[:, self._live], self._seen.at_end[:, self._live]
        used, intensity = ~at_end | (value < 0.5 * value.max()), value - black.level
        shape = (self._field.shape[1], len(self._live))
        noise = np.array(STARTING_NOISE) * max(float(intensity.mean()), 1e-9)
        fit = _Fit(
            self._live, used, np.ones_like(used), black, np.zeros(shape, complex),
            np.zeros((2, *shape)), noise,
        )  # fmt: skip
        self._read_noise(fit)
        self._refine(fit, np.arange(len(self._live)), started(self._field, intensity))
        if not fit.repeated:
            self._read_noise(fit)
            self._finish(fit, np.arange(len(self._live)))
        return fit

    def _settle(self, fit: _Fit, known: Black | None) -> None:
        """Rows, noise and black level without the readings that no noise explains."""
        value, at_end = self._seen.value[:, fit.pixels], self._seen.at_end[:, fit.pixels]
        for _ in range(ROUNDS):
            if known is None:
                self._settle_black(fit)
            power, black = self._power(fit), fit.black.level
            law = Law(power, fit.noise[0] + fit.noise[1] * power)
            fit.near = explained(value, law, black, self._step, self._high)
            kept = fit.near & inside(power, at_end, black, self._step, self._high)
            changed = np.flatnonzero((kept != fit.used).any(0))
            if not len(changed):
                break
            fit.used = kept
            self._read_noise(fit)
            # Outliers can have sent a row into a wrong valley: it begins anew without them.
            self._refine(fit, changed, (fit.rows[:, changed], fit.rows[:, changed]))

    def _refine(
        self, fit: _Fit, some: npt.NDArray[np.int64], starts: tuple[Complex, Complex]
    ) -> None:
        """Rows of some of the live pixels, fitted from `starts`."""
        intensity = self._intensity(fit)[:, some]
        fit.rows[:, some], fit.errors[:, :, some] = refined(
            self._field, intensity, fit.used[:, some], starts, fit.noise, self._mean, self._key
        )

    def _finish(self, fit: _Fit, some: Ints) -> None:
        """Rows of some of the live pixels and their errors, from where they are."""
        fit.rows[:, some], fit.errors[:, :, some] = finished(
            self._field, self._intensity(fit)[:, some], fit.used[:, some], fit.rows[:, some],
            fit.noise, self._mean,
        )  # fmt: skip

    def _read_noise(self, fit: _Fit) -> None:
        """Noise from repeats, where there are any; else from what the rows leave over."""
        repeats = bursts(self._seen, fit.pixels, fit.used)
        fit.repeated = repeats is not None
        if repeats is None:
            if not fit.rows.any():
                return
            repeats = self._leftover(fit)
        found = photon_transfer(repeats, fit.black.level, self._step, fit.black.variance)
        read, gain = found.values
        fit.transfer = found
        fit.noise = np.maximum([read**2 + self._step**2 / 12, gain], 1e-12)

    def _settle_black(self, fit: _Fit) -> None:
        """A black level that no dark frames tell, in turns with the rows."""
        count, few = len(self._field), COARSE_ROWS * 2 * self._field.shape[1]
        some = np.linspace(0, count - 1, min(count, few)).astype(np.int64)
        found = self._black_steps(fit, some, BLACK_NEAR) if np.isnan(fit.black.error) else None
        if found is None or np.isfinite(found.error):
            found = self._black_steps(fit, np.arange(count), BLACK_SURE)
        self._finish(fit, np.arange(len(fit.pixels)))
        self._widen(fit, found)

    def _black_steps(self, fit: _Fit, frames: Ints, near: float) -> Shift:
        """Steps of level and rows on some frames, the last one below `near` of its error."""
        for _ in range(BLACK_STEPS):
            self._read_noise(fit)
            found = self._black_step(fit, frames)
            if abs(found.by) < near * found.error:
                break
        return found

    def _black_step(self, fit: _Fit, frames: Ints) -> Shift:
        """One step of the level and of the rows that follow it, in which both are best."""
        field, used = self._field[frames], fit.used[frames]
        intensity = self._intensity(fit)[frames]
        fit.rows = nearer(field, intensity, used, fit.rows, fit.noise)
        found = shift(field, intensity, used, fit.rows, fit.noise)
        signal = float(np.mean(np.abs(field @ fit.rows) ** 2))
        if self._field.shape[1] < FEWEST_CHANNELS or found.error > LARGEST_ERROR * signal:
            fit.black = Black(0.0, np.nan)
            return found._replace(by=0.0, error=np.inf)
        half = len(fit.rows)
        fit.rows = fit.rows + found.by * (found.rows[:half] + 1j * found.rows[half:])
        fit.black = Black(fit.black.level + found.by, found.error)
        return found

    def _widen(self, fit: _Fit, found: Shift) -> None:
        """Errors of rows with that of the level they were fitted beside."""
        if not np.isfinite(found.error):
            fit.errors = np.full_like(fit.errors, np.nan)
            return
        by_level = found.error * found.rows.reshape(2, len(fit.rows), -1)
        fit.errors = np.sqrt(fit.errors**2 + by_level**2)

    # ---- parts ---------------------------------------------------------------

    def _intensity(self, fit: _Fit) -> Floats:
        return np.asarray(self._seen.value[:, fit.pixels] - fit.black.level)

    def _power(self, fit: _Fit) -> Floats:
        return np.asarray(np.abs(self._field @ fit.rows) ** 2)

    def _leftover(self, fit: _Fit) -> Repeats:
        """Squared residuals as if of repeats."""
        power = self._power(fit)
        freedom = 1 - 2 * len(fit.rows) / max(len(power), 2 * len(fit.rows) + 1)
        left = (self._intensity(fit) - power) ** 2 / freedom
        count = np.ones(int(fit.used.sum()))
        return Repeats(power[fit.used] + fit.black.level, left[fit.used], count)

    def _open(
        self, fit: _Fit, transfer: CurveFit, motion: Motion, power: Floats, intensity: Floats
    ) -> tuple[Direction, ...]:
        """What the recording leaves open, and where the law does not hold."""
        found = [*transfer.unidentified]
        if np.isnan(fit.black.error):
            why = "no dark frames that tell, and rows that follow any level; taken as 0"
            found.append(Direction({"black_level": 1.0}, why))
        if motion.why:
            found.append(Direction({RATE.name: 1.0}, motion.why))
        return (*found, *self._wrong(fit, transfer, motion, power, intensity))

    def _wrong(
        self, fit: _Fit, transfer: CurveFit, motion: Motion, power: Floats, intensity: Floats
    ) -> list[Direction]:
        """Where the law does not hold; errors of rows are widened by what it leaves over."""
        law, found = Law(power, fit.noise[0] + fit.noise[1] * power), []
        if fit.repeated:
            sure = _relative_error(transfer, float(power.mean()))
            times = excess(intensity, fit.used, law, 2 * len(fit.rows) - 1, sure)
            # Rows of a medium that moved are averages over the recording.
            moved = times > 1 and motion.rate > SURELY * motion.error
            fit.errors = fit.errors * (np.nan if moved else np.sqrt(times))
            if moved:
                return [misfit(times, moved)]
            found = [misfit(times, moved)] if times > 1 else []
        flicker = flickering(self._field, fit.rows, intensity, fit.used, law)
        return [*found, *([flicker] if flicker else [])]

    def _joined(self, fit: _Fit, power: Floats, intensity: Floats) -> Estimates:
        transfer = fit.transfer
        assert transfer is not None
        # All readings: what a moving medium puts far off is no outlier here.
        motion = decorrelation(self._seen, intensity)
        open_ = self._open(fit, transfer, motion, power, intensity)
        live = fit.pixels
        pixels, channels = self._seen.value.shape[1], len(fit.rows)
        matrix, errors = np.zeros((2, pixels, channels)), np.full((2, pixels, channels), np.nan)
        matrix[0, live], matrix[1, live] = fit.rows.real.T, fit.rows.imag.T
        errors[:, live] = fit.errors.transpose(0, 2, 1)
        stuck = np.ones(pixels, bool)
        stuck[live] = False
        named = {name for direction in open_ for name in direction.weights}
        unsure = np.nan if named & {GAIN.name, READ.name, "black_level"} else 1.0
        value = self._seen.value
        left_out = ~fit.near.all(0)
        return Estimates(
            values={
                "transmission": matrix,
                "black_level": np.array(fit.black.level),
                "read_noise": np.array(transfer.values[0]),
                "per_electron": np.array(transfer.values[1]),
                "decorrelation_hz": np.array(motion.rate),
                "code_step": np.array(self._step),
                "pixel_stuck": stuck.astype(np.float64),
                "pixel_level": np.where(stuck, value.mean(0), 0.0),
                "pixel_flicker": np.where(stuck, value.std(0), 0.0),
            },
            errors={
                "transmission": errors,
                "black_level": np.array(fit.black.error),
                "read_noise": np.array(transfer.errors[0] * unsure),
                "per_electron": np.array(transfer.errors[1] * unsure),
                "decorrelation_hz": np.array(motion.error),
            },
            covariance={(READ.name, GAIN.name): transfer.covariance * unsure},
            unidentified=open_,
            flags={
                "stuck pixels": tuple(int(p) for p in np.flatnonzero(stuck)),
                "pixels with readings left out": tuple(int(p) for p in live[left_out]),
            },
        )


def _relative_error(transfer: CurveFit, power: float) -> float:
    """Standard error of the variance of a reading of that power, over the variance."""
    read, gain = transfer.values
    push = np.array([2 * read, power])
    error2 = float(push @ np.nan_to_num(transfer.covariance) @ push)
    return float(np.sqrt(max(error2, 0.0)) / max(read**2 + gain * power, 1e-300))
