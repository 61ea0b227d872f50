"""Noise of a camera from its repeats: photon transfer, behind the rounding to codes.

Readings in units of the nominal full scale.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twin.errors import DataError
from twin.observations import Observations
from twin.rounding import MEDIAN_SQUARE, hidden
from twin.solving import CurveFit, curve
from twin.twinmodel import Floats, Parameter

Mask = npt.NDArray[np.bool_]

BINS = 30
LOWEST_CODES = 3.0
OUTLIER_SIGMAS = 5.0
"""Readings further off are left out, one in 2 million of Gaussian ones: a particle hits, a bit
flips."""

OUTLIER_CODES = 2.0
"""A noise far below one code shows in few readings, which are no outliers for that."""

READ = Parameter(name="read_noise", unit="full scale", low=0.0, high=1.0)
GAIN = Parameter(name="per_electron", unit="full scale", low=0.0, high=1.0)


class Repeats(NamedTuple):
    """mean, variance, freedom: (k,), of shots of one drive in one call, all pixels."""

    mean: Floats
    variance: Floats
    freedom: Floats


def bursts(seen: Observations, pixels: npt.NDArray[np.int64], used: Mask) -> Repeats | None:
    """Shots of one drive in one call, flat over calls and pixels; None without shots.

    used: (n, pixels). Of a burst with a reading that is not used nothing is taken.
    """
    order = np.argsort(seen.burst, kind="stable")
    burst = seen.burst[order]
    starts = np.flatnonzero(np.r_[True, burst[1:] != burst[:-1]])
    count = np.diff(np.r_[starts, len(burst)])
    if not (count > 1).any():
        return None
    value = seen.value[order][:, pixels]
    mean = np.add.reduceat(value, starts) / count[:, None]
    squares = np.add.reduceat((value - np.repeat(mean, count, 0)) ** 2, starts)
    clean = (count > 1)[:, None] & (np.add.reduceat(~used[order], starts) == 0)
    freedom = np.broadcast_to((count - 1)[:, None], mean.shape)
    variance = squares / np.maximum(freedom, 1)
    return Repeats(mean[clean], variance[clean], freedom[clean].astype(float))


def quiet(value: Floats, step: float) -> Mask:
    """Readings (n, pixels) of steady light that are no outliers of their pixel's own."""
    off = (value - np.median(value, 0)) ** 2
    typical = np.median(off, 0) / MEDIAN_SQUARE
    return np.asarray(off <= np.maximum(OUTLIER_SIGMAS**2 * typical, (OUTLIER_CODES * step) ** 2))


def rounded(sigma2: Floats) -> Floats:
    """Variance of rounded readings about their own means, codes squared.

    Averaged over where between two codes the mean lies: rounding hides a noise far below
    one code.
    """
    return np.asarray(sigma2 + 1 / 12 - hidden(sigma2))


def photon_transfer(
    seen: Repeats, black: float, step: float, dark: tuple[float, int] | None
) -> CurveFit:
    """read_noise and per_electron: noise^2 = read^2 + gain (mean - black), then rounded.

    dark: (variance, degrees of freedom) of dark frames, if they tell. Readings within
    LOWEST_CODES of the lowest code are left out: what is cut off there is not noise.
    """
    x, y, dof = _binned(seen, black, step)
    if dark is not None:
        x, y, dof = np.r_[0.0, x], np.r_[dark[0], y], np.r_[float(dark[1]), dof]
    x, y = x / step, y / step**2
    scale = np.array([np.sqrt(y.mean()), y.mean() / max(float(np.abs(x).mean()), 1e-12)])
    # In codes here, and so are the bounds.
    bounds = [replace(p, high=p.high / step) for p in (READ, GAIN)]
    start, noise2 = scale / 2, np.full(len(x), float(y.mean()))
    for _ in range(4):
        law = np.maximum(rounded(noise2), 1e-4)
        # Of two codes, one apart, the variance scatters more than that of a normal law.
        sigma = np.sqrt((2 * law**2 + 0.5 * law * np.exp(-2 * np.pi**2 * noise2)) / dof)
        found = curve(bounds, partial(_off_law, x, y, sigma), start, scale=scale)
        # At 0 the slope of a square vanishes, and no step would leave it again.
        start = np.maximum(found.values, 0.05 * scale)
        noise2 = np.maximum(start[0] ** 2 + start[1] * x, 1e-6)
    units = np.array([step, step])
    return CurveFit(
        found.values * units, found.covariance * units[:, None] * units, found.unidentified
    )


def _binned(seen: Repeats, black: float, step: float) -> tuple[Floats, Floats, Floats]:
    """Signal, variance and degrees of freedom of BINS groups of like signal."""
    inside = seen.mean > LOWEST_CODES * step
    mean, variance, freedom = (a[inside] for a in seen)
    if len(mean) < 2 * BINS:
        raise DataError(f"expected {2 * BINS} repeats above black, got {len(mean)}. Record more.")
    bins = []
    for some in np.array_split(np.argsort(mean, kind="stable"), BINS):
        near = some[_near(variance[some], freedom[some], step)]
        dof = freedom[near].sum()
        signal = (freedom[near] * (mean[near] - black)).sum() / dof
        bins.append((signal, (freedom[near] * variance[near]).sum() / dof, dof))
    x, y, dof = np.array(bins).T
    return x, y, dof


def _near(variance: Floats, freedom: Floats, step: float) -> Mask:
    """Variances that no outlier is in: one far shot makes that of its whole burst."""
    typical = float(np.median(variance)) / MEDIAN_SQUARE
    limit = max(OUTLIER_SIGMAS**2 * typical, 2 * OUTLIER_CODES**2 * step**2)
    return np.asarray(variance * freedom <= limit + 2 * typical * freedom)


def _off_law(x: Floats, y: Floats, sigma: Floats, p: Floats) -> Floats:
    return (rounded(np.maximum(p[0] ** 2 + p[1] * x, 0.0)) - y) / sigma


def widened(freedom: int) -> float:
    """Student's 97.5 % quantile over that of a normal law."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(freedom, 0.975) / ndtri(0.975))
