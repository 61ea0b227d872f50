"""How well a twin predicts the part of a recording that was never fitted.

Readings in units of the nominal full scale. Knows devices only through `TwinModel`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from twin.errors import DataError
from twin.observations import Floats, Ints, Observations, numbered
from twin.twinmodel import Estimates, TwinModel

FEWEST_HELD_OUT = 20

SURE = 8.0
"""Standard deviations behind an end of the range at which a reading is taken to be there."""

OPEN = 0.5
"""Share of its variance that a reading keeps under clipping, to be standardised by it."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How a twin does on passes that were never fitted.

    passes: how many. drives: repeated ones among them. rms_error: of the twin's mean
    against single readings, noise included, and rms_noise: of a device reading about its
    own mean, both of full scale and over the repeated drives (without any: over all
    passes, and None). standardised: r.m.s. of (reading - mean) / predicted sigma; 1 is
    right. noise_ratio: predicted variance over that of the repeats.
    fidelity: RMS(twin shot - device shot) / RMS(device shot - device repeat), 1 is as
    close as the device is to itself; None without repeats, or where all are equal.
    fidelity_error: its standard error, by leaving out drives; None of fewer than two.
    repeats: "shots" of one call, or drives that came again in later "calls", so that what
    changed in between counts as noise; "none".
    """

    passes: int
    drives: int
    rms_error: float
    rms_noise: float | None
    standardised: float
    noise_ratio: float | None
    fidelity: float | None
    fidelity_error: float | None
    repeats: str

    def __post_init__(self) -> None:
        numbers = [
            self.rms_error, self.rms_noise, self.standardised, self.noise_ratio, self.fidelity,
            self.fidelity_error,
        ]  # fmt: skip
        known = [n for n in numbers if n is not None]
        if self.passes < FEWEST_HELD_OUT or not all(math.isfinite(n) and n >= 0 for n in known):
            raise DataError(
                f"a held-out score needs {FEWEST_HELD_OUT} passes or more and finite errors, got "
                f"{self.passes} passes. Record a longer probe."
            )

    @property
    def misfit(self) -> float | None:
        """R.m.s. error that noise does not explain, of full scale; None without repeats."""
        if self.rms_noise is None:
            return None
        return math.sqrt(max(self.rms_error**2 - self.rms_noise**2, 0.0))


class _Repeats(NamedTuple):
    """Sums over repeated readings, one row per drive, so that drives can be left out.

    noise2, freedom: squares about the means of repeats, and their degrees of freedom.
    error2, shots2, variance: of the readings, of which there are `readings`.
    """

    noise2: Floats
    freedom: Floats
    error2: Floats
    shots2: Floats
    variance: Floats
    readings: Floats

    def fidelity(self, left_out: int | None = None) -> float | None:
        """None where the repeats are equal, or there are none."""
        kept = np.arange(len(self.readings)) != (-1 if left_out is None else left_out)
        noise2 = self.noise2[kept].sum() / max(self.freedom[kept].sum(), 1.0)
        shots2 = self.shots2[kept].sum() / max(self.readings[kept].sum(), 1.0)
        return float(np.sqrt(shots2 / (2 * noise2))) if noise2 > 0 else None

    def fidelity_error(self) -> float | None:
        """Jackknife: sqrt((n - 1) / n sum (without one - mean)^2) over n drives."""
        drives = len(self.readings)
        without = [self.fidelity(drive) for drive in range(drives)] if drives > 1 else []
        known = [value for value in without if value is not None]
        if len(known) < 2:
            return None
        return float(np.sqrt((len(known) - 1) * np.var(known)))


def score(model: TwinModel, found: Estimates, seen: Observations) -> HeldOut:
    """How a twin predicts passes in the state that the device was left in."""
    if not len(seen):
        raise DataError(
            "no drive in the device's last state was left to judge the twin by. Record more."
        )
    plain = model.predict(found.values, seen.drive, model.held(found.values), seen.age_s)
    port = seen.capabilities.readings[0]
    ends = port.code_low * seen.step, port.code_high * seen.step
    mean, variance = clipped(plain.mean, plain.variance, *ends)
    error2 = (seen.value - mean) ** 2
    sure = (variance > 0) & (variance >= OPEN * plain.variance)
    standard = error2[sure] / variance[sure]
    label, repeats = _labels(seen)
    told = None if label is None else _repeats(seen, label, error2, variance)
    return HeldOut(
        passes=len(seen),
        drives=0 if told is None else len(told.readings),
        rms_error=_rms(error2) if told is None else _root(told.error2, told.readings),
        rms_noise=None if told is None else _root(told.noise2, told.freedom),
        standardised=_rms(standard) if sure.any() else 0.0,
        noise_ratio=None if told is None else _noise_ratio(told),
        fidelity=None if told is None else told.fidelity(),
        fidelity_error=None if told is None else told.fidelity_error(),
        repeats=repeats,
    )


def clipped(mean: Floats, variance: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of a normal law whose values beyond low and high are put there.

    With a, b the ends in standard deviations from the mean, E z = a P(a) + b Q(b) +
    p(a) - p(b) and E z^2 = a^2 P(a) + b^2 Q(b) + P(b) - P(a) + a p(a) - b p(b).
    """
    sigma = np.sqrt(np.maximum(variance, 1e-300))
    a, b = (np.clip((end - mean) / sigma, -SURE, SURE) for end in (low, high))
    below, above = ndtr(a), ndtr(-b)
    pa, pb = (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) for z in (a, b))
    first = a * below + b * above + pa - pb
    second = a**2 * below + b**2 * above + (1 - below - above) + a * pa - b * pb
    inside = (a < SURE) & (b > -SURE) & (variance > 0)
    middle = np.clip(mean + np.where(inside, sigma * first, 0.0), low, high)
    return middle, np.where(inside, variance * np.maximum(second - first**2, 0.0), 0.0)


def _labels(seen: Observations) -> tuple[Ints | None, str]:
    """A number for readings (n,) that should agree but for noise, and what repeats them.

    Shots of one call, so that a device that changes in between does not hide behind it.
    """
    for label, repeats in ((seen.burst, "shots"), (seen.group, "calls")):
        if len(np.unique(label)) < len(label):
            return label, repeats
    return None, "none"


def _repeats(seen: Observations, label: Ints, error2: Floats, variance: Floats) -> _Repeats:
    """Sums by drive over the rows whose label is not alone."""
    _, number, count = np.unique(label, return_inverse=True, return_counts=True)
    rows = count[number] > 1
    number, value = number[rows], seen.value[rows]
    mean = np.zeros((len(count), value.shape[1]))
    np.add.at(mean, number, value)
    about = value - (mean / count[:, None])[number]
    drive, outputs = numbered(seen.drive[rows]), value.shape[1]

    def summed(what: Floats) -> Floats:
        return np.bincount(drive, what).astype(np.float64)

    return _Repeats(
        noise2=summed((about**2).sum(1)),
        freedom=summed(outputs * (1 - 1 / count[number])),
        error2=summed(error2[rows].sum(1)),
        shots2=summed((error2 + variance)[rows].sum(1)),
        variance=summed(variance[rows].sum(1)),
        readings=summed(np.full(len(value), float(outputs))),
    )


def _noise_ratio(told: _Repeats) -> float | None:
    noise2 = told.noise2.sum() / told.freedom.sum()
    return float(told.variance.sum() / told.readings.sum() / noise2) if noise2 > 0 else None


def _root(squares: Floats, count: Floats) -> float:
    return float(np.sqrt(squares.sum() / count.sum()))


def _rms(squares: Floats) -> float:
    return float(np.sqrt(squares.mean()))
