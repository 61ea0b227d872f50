"""Which pixels and readings of a rig the fitted law explains, and where it falls short.

Readings in units of the nominal full scale; `intensity` is without the black level.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from substrates.optics.twinnoise import (
    GAIN,
    LOWEST_CODES,
    OUTLIER_CODES,
    OUTLIER_SIGMAS,
    READ,
)
from twin.rounding import MEDIAN_SQUARE
from twin.twinmodel import Direction, Floats

Mask = npt.NDArray[np.bool_]
Complex = npt.NDArray[Any]

BY_CHANCE = 3e-7
"""Five standard deviations: probability of a finding where there is nothing."""

FEW_OUTLIERS = 0.02
"""Share of a pixel's readings from which far ones are no accident and stay in the fit."""

FAINT = 0.1
"""Of the spread that bright pixels have: what a stuck one may flicker by."""

SIGMAS = 5.0
ALIKE = 20
"""Readings of nearly one intensity that are compared with each other."""

SMALL_EXCESS = 0.05
"""Excess of residuals over noise that is not worth a word, however sure."""


class Law(NamedTuple):
    """What the fit predicts of its readings: power (n, pixels), variance of one shot."""

    power: Floats
    variance: Floats


def answering(intensity: Floats, used: Mask, power: Floats, unknowns: int) -> Mask:
    """Pixels whose readings follow the drives, by an F test of their row against a constant.

    Where most bright pixels do not, the medium moves too fast for the test: then only
    those stand out that hardly change at all.
    """
    from scipy.special import fdtrc

    count = used.sum(0)
    mean = (intensity * used).sum(0) / np.maximum(count, 1)
    whole = ((intensity - mean) ** 2 * used).sum(0)
    left = ((intensity - power) ** 2 * used).sum(0)
    freedom = np.maximum(count - unknowns - 1, 1)
    ratio = (whole - left) / unknowns / np.maximum(left / freedom, 1e-300)
    follows = fdtrc(unknowns, freedom, np.maximum(ratio, 0)) < BY_CHANCE
    spread = np.sqrt(whole / np.maximum(count, 1))
    bright = spread > FAINT * np.quantile(spread, 0.9)
    return np.asarray(follows | (bright & (follows[bright].mean() < 0.5)), bool)


def explained(reading: Floats, law: Law, black: float, step: float, high: float) -> Mask:
    """Readings that some noise explains: of a pixel's own width, if that is above the law's.

    high: largest reading, where predictions are cut off too. Of a pixel with more than
    FEW_OUTLIERS beyond, all count as explained: a noise with such tails is the pixel's.
    """
    off = (reading - np.clip(law.power + black, 0.0, high)) ** 2
    own = np.median(off / law.variance, 0) / MEDIAN_SQUARE
    limit = np.maximum(
        OUTLIER_SIGMAS**2 * law.variance * np.maximum(own, 1.0), (OUTLIER_CODES * step) ** 2
    )
    near = off <= limit
    return np.asarray(near | ((~near).mean(0) > FEW_OUTLIERS))


def inside(power: Floats, at_end: Mask, black: float, step: float, high: float) -> Mask:
    """Readings that the ends of the converter's range do not cut off, by their prediction.

    By what was read, those near the end would be chosen by their noise. Of pixels that
    never reach an end all are inside; where few would be left, what is not at the end.
    """
    margin = LOWEST_CODES * step
    mean = black + power
    safe = (mean > margin) & (mean < high - margin) & ~(at_end & (mean > high / 2))
    safe |= ~at_end.any(0)
    return np.where(safe.mean(0) > 0.5, safe, ~at_end)


def excess(intensity: Floats, used: Mask, law: Law, unknowns: int, noise_error: float) -> float:
    """Residuals' variance over that of repeats, if it is surely above 1; else 1.

    noise_error: relative standard error of the variance that repeats give.
    """
    freedom = int(used.sum()) - unknowns * intensity.shape[1]
    if freedom < 1:
        return 1.0
    found = float((used * (intensity - law.power) ** 2 / law.variance).sum()) / freedom
    sure = 1 + max(SIGMAS * float(np.hypot(noise_error, np.sqrt(2 / freedom))), SMALL_EXCESS)
    return found if found > sure else 1.0


def misfit(times: float, moved: bool) -> Direction:
    """Residuals with `times` the variance of repeats: a mean law that does not hold."""
    why = "the medium moved, and rows are averages over the recording" if moved else (
        "the light moved, or the law is another one; errors of rows are widened by its root"
    )  # fmt: skip
    return Direction(
        {"transmission": 0.58, GAIN.name: 0.58, READ.name: 0.58},
        f"residuals have {times:.2f} times the variance of repeats: {why}",
    )


def _among_equals(ordered: Floats) -> Floats:
    """Each number less the mean of its neighbours in a group of ALIKE."""
    groups = np.array_split(ordered, max(1, len(ordered) // ALIKE))
    return np.concatenate([group - group.mean() for group in groups])


def flickering(
    field: Complex, rows: Complex, intensity: Floats, used: Mask, law: Law
) -> Direction | None:
    """Squared residuals that grow with what phases do to a reading, not with its photons.

    Phase noise of variance s^2 adds s^2 sum_j (dI / d phase_j)^2 at equal intensity: a
    regression on that, of each pixel, among readings of like intensity.
    """
    noise2 = (intensity - law.power) ** 2 / law.variance
    told = slope = spread = 0.0
    for pixel in range(rows.shape[1]):
        use = used[:, pixel]
        light = field[use] * rows[:, pixel]
        push = 4 * ((np.conj(light.sum(1))[:, None] * light[:, :-1]).imag ** 2).sum(1)
        order = np.argsort(law.power[use, pixel])
        push = _among_equals((push / law.variance[use, pixel])[order])
        z = _among_equals(noise2[use, pixel][order])
        told += float(push @ push)
        slope += float(push @ z)
        spread += float(((push * z) ** 2).sum())
    if spread <= 0 or slope < SIGMAS * np.sqrt(spread):
        return None
    return Direction(
        {GAIN.name: 0.7, READ.name: 0.7},
        f"noise grows with the push of phases on a reading, as of {np.sqrt(slope / told):.2g} rad "
        "of phase flicker: photons and read noise alone do not explain it",
    )
