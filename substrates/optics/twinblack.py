"""Black level of a camera: from dark frames, or from how frames with light depend on it.

Readings in units of the nominal full scale.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from substrates.optics.twinnoise import quiet, widened
from substrates.optics.twinrows import linearised
from twin.observations import Observations
from twin.twinmodel import Floats

CUT_OFF = 0.01
"""Share of dark codes at the lowest one from which black level is not known."""

FEWEST_CHANNELS = 3
FEWEST_PIXELS = 4
LARGEST_ERROR = 0.1
"""Of the mean signal: a black level known no better is open."""


class Black(NamedTuple):
    """level: reading without light. error: its standard error; NaN where it is open.
    variance: mean variance of a pixel in dark frames and its degrees of freedom, if known."""

    level: float
    error: float
    variance: tuple[float, int] | None = None


def dark_level(dark: Observations, pixels: npt.NDArray[np.int64], step: float) -> Black | None:
    """From dark frames; None where there are none, or where they are cut off at the end."""
    if not len(dark) or float(dark.at_end[:, pixels].mean()) > CUT_OFF:
        return None
    value = dark.value[:, pixels]
    value = np.where(quiet(value, step), value, np.nan)
    # Patterns of the sensor repeat in every frame: pixels count, not readings.
    per_pixel = np.nanmean(value, 0)
    error2 = max(float(per_pixel.var()), float(np.nanvar(value)) / len(value)) / len(per_pixel)
    least2 = step**2 / (12 * value.size)
    variance = None
    if len(dark) > 1:
        variance = float(np.nanvar(value, 0, ddof=1).mean()), int(np.isfinite(value).sum())
    return Black(float(per_pixel.mean()), float(np.sqrt(max(error2, least2))), variance)


class Shift(NamedTuple):
    """What a common change of all readings does to rows fitted at another black level.

    by: the change that fits best, full scale. error: its standard error with the rows
    fitted along. rows: (2 channels, pixels), change of the rows per change of the level.
    """

    by: float
    error: float
    rows: Floats


def shift(
    field: npt.NDArray[np.complex128],
    intensity: Floats,
    free: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.complex128],
    noise: Floats,
) -> Shift:
    """One Gauss-Newton step of the black level that all pixels share, the rows eliminated.

    Products of fields have rank 1, so that from three channels on a constant is none of
    theirs: its part that no row can follow tells the level. The arguments are those of
    `twinrows.refined`. error is infinite where every change is a row's.
    """
    told, slope = np.zeros((2, rows.shape[1]))
    follows = np.zeros((2 * len(rows), rows.shape[1]))
    for pixel in range(rows.shape[1]):
        at = linearised(field, intensity[:, pixel], free[:, pixel], rows[:, pixel], noise)
        inverse = np.linalg.pinv(at.curvature, rcond=1e-10, hermitian=True)
        follows[:, pixel] = inverse @ at.constant
        told[pixel] = at.weight.sum() - at.constant @ follows[:, pixel]
        slope[pixel] = at.weight @ at.left - follows[:, pixel] @ at.slope
    if told.sum() <= 0:
        return Shift(0.0, np.inf, follows)
    return Shift(float(slope.sum() / told.sum()), _error(told, slope), -follows)


def _error(told: Floats, slope: Floats) -> float:
    """Standard error of a level that pixels share: by their noise, or their scatter if more.

    The darkest readings tell most, and of those |f @ t|^2 is no straight line any more.
    """
    count, all_ = len(told), float(told.sum())
    by_noise = 1 / np.sqrt(all_)
    if count < FEWEST_PIXELS:
        return float(by_noise)
    off = slope - told * slope.sum() / all_
    scatter = np.sqrt((off**2).sum() * count / (count - 1)) / all_
    return float(max(by_noise, scatter * widened(count - 1)))
