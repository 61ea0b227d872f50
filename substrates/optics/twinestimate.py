"""From frames of random drives to the parameters of an optical twin.

Black level from dark frames; rows pixel by pixel; gain and read noise from shots of
equal drives (photon transfer); decorrelation from the same drives over time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from substrates.optics.twinrows import refined, started
from twin.errors import DataError
from twin.key import Key
from twin.observations import Observations
from twin.solving import CurveFit, curve
from twin.twinmodel import Direction, Estimates, Floats, Parameter

Complex = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

FEWEST_PER_UNKNOWN = 2.0
BINS = 30
HARMONICS = 200
LOWEST_CODES = 3.0
CUT_OFF = 0.01
"""Share of dark codes at the lowest one from which black level is not known."""

SHUTTER = "shutter"
LAGS = 24
STARTING_NOISE = (1e-6, 1e-3)

READ = Parameter(name="read_noise", unit="full scale", low=0.0, high=1.0)
GAIN = Parameter(name="per_electron", unit="full scale", low=0.0, high=1.0)
RATE = Parameter(name="decorrelation_hz", unit="Hz", low=0.0, high=1e6)


class RigFit:
    """One fit; field: (n, channels), the light of each row of `seen`. mean: (channels,),
    light whose field fixes the phase of a row."""

    def __init__(self, seen: Observations, field: Complex, mean: Complex, key: Key) -> None:
        self._key, self._mean = key, mean
        shutter = seen.dials.get(SHUTTER, np.ones(len(seen)))
        self._dark, lit = seen.rows(shutter == 0), shutter == 1
        self._seen, self._field = seen.rows(lit), field[lit]
        self._step = float(np.median(seen.step))
        unknowns = 2 * field.shape[1]
        if len(self._seen) < FEWEST_PER_UNKNOWN * unknowns:
            raise DataError(
                f"expected {int(FEWEST_PER_UNKNOWN * unknowns)} passes with light or more for "
                f"{unknowns} unknowns of a pixel, got {len(self._seen)}. Record a longer probe."
            )
        # Without one different code in all frames a pixel is stuck, dead or blind.
        value = self._seen.value
        self._stuck = (value == value[0]).all(0)
        if self._stuck.all():
            raise DataError("no pixel ever changed. Check the light and the exposure.")
        self._live: Ints = np.flatnonzero(~self._stuck).astype(np.int64)

    def estimates(self) -> Estimates:
        black, black_error, open_ = self._black()
        intensity = self._seen.value[:, self._live] - black
        free = ~self._seen.at_end[:, self._live] | (intensity < 0.5 * intensity.max())
        starts = started(self._field, intensity)
        noise = np.array(STARTING_NOISE) * max(float(intensity.mean()), 1e-9)
        rounding = self._step**2 / 12
        transfer: CurveFit | None = None
        bursts = _bursts(self._seen, self._live)
        if bursts is not None:
            transfer = photon_transfer(*bursts, black, self._step, self._dark_variance())
            noise = np.array([transfer.values[0] ** 2 + rounding, transfer.values[1]])
        rows, errors = refined(
            self._field, intensity, free, starts, np.maximum(noise, 1e-12), self._mean, self._key
        )
        if transfer is None:
            transfer = self._leftover(intensity, free, rows, black)
        rate = decorrelation(self._seen, self._live)
        return self._joined(rows, errors, (black, black_error, open_), transfer, rate)

    def _black(self) -> tuple[float, float, tuple[Direction, ...]]:
        if not len(self._dark):
            why = "no dark frames in the recording; taken as 0"
            return 0.0, np.nan, (Direction({"black_level": 1.0}, why),)
        value = self._dark.value[:, self._live]
        if float(self._dark.at_end[:, self._live].mean()) > CUT_OFF:
            why = "dark frames are cut off at the lowest code; taken as 0"
            return 0.0, np.nan, (Direction({"black_level": 1.0}, why),)
        # Patterns of the sensor repeat in every frame: pixels count, not readings.
        per_pixel = value.mean(0)
        error2 = max(per_pixel.var(), value.var() / len(value)) / len(per_pixel)
        least2 = self._step**2 / (12 * value.size)
        return float(per_pixel.mean()), float(np.sqrt(max(error2, least2))), ()

    def _dark_variance(self) -> tuple[float, int] | None:
        """Mean variance of a pixel in dark frames, and its degrees of freedom."""
        if len(self._dark) < 2:
            return None
        value = self._dark.value[:, self._live]
        clipped = float(self._dark.at_end[:, self._live].mean())
        # A camera without a black level cuts half of its dark noise off.
        return None if clipped > CUT_OFF else (float(value.var(0, ddof=1).mean()), value.size)

    def _leftover(
        self, intensity: Floats, free: npt.NDArray[np.bool_], rows: Complex, black: float
    ) -> CurveFit:
        """Photon transfer from what the rows leave over, where nothing was repeated."""
        power = np.abs(self._field @ rows) ** 2
        freedom = 1 - 2 * len(rows) / max(len(power), 2 * len(rows) + 1)
        left = (intensity - power) ** 2 / freedom
        ones = np.ones(int(free.sum()))
        return photon_transfer(
            power[free] + black, left[free], ones, black, self._step, self._dark_variance()
        )

    def _joined(
        self,
        rows: Complex,
        row_errors: Floats,
        black: tuple[float, float, tuple[Direction, ...]],
        transfer: CurveFit,
        rate: tuple[float, float],
    ) -> Estimates:
        pixels, channels = len(self._stuck), len(rows)
        matrix, errors = np.zeros((2, pixels, channels)), np.full((2, pixels, channels), np.nan)
        matrix[0, self._live], matrix[1, self._live] = rows.real.T, rows.imag.T
        errors[:, self._live] = row_errors.transpose(0, 2, 1)
        open_ = [*black[2], *transfer.unidentified]
        if np.isnan(rate[1]):
            why = "no drive comes again later; taken as 0"
            open_.append(Direction({RATE.name: 1.0}, why))
        value = self._seen.value[0]
        return Estimates(
            values={
                "transmission": matrix,
                "black_level": np.array(black[0]),
                "read_noise": np.array(transfer.values[0]),
                "per_electron": np.array(transfer.values[1]),
                "decorrelation_hz": np.array(rate[0]),
                "code_step": np.array(self._step),
                "pixel_stuck": self._stuck.astype(np.float64),
                "pixel_level": np.where(self._stuck, value, 0.0),
            },
            errors={
                "transmission": errors,
                "black_level": np.array(black[1]),
                "read_noise": np.array(transfer.errors[0]),
                "per_electron": np.array(transfer.errors[1]),
                "decorrelation_hz": np.array(rate[1]),
            },
            covariance={(READ.name, GAIN.name): transfer.covariance},
            unidentified=tuple(open_),
            flags={"stuck pixels": tuple(int(p) for p in np.flatnonzero(self._stuck))},
        )


def _bursts(seen: Observations, live: Ints) -> tuple[Floats, Floats, Floats] | None:
    """Mean, variance and degrees of freedom of shots of one drive in one call.

    Flat over bursts and pixels; None without shots. Saturated ones are left out.
    """
    order = np.argsort(seen.burst, kind="stable")
    burst = seen.burst[order]
    starts = np.flatnonzero(np.r_[True, burst[1:] != burst[:-1]])
    count = np.diff(np.r_[starts, len(burst)])
    if not (count > 1).any():
        return None
    value = seen.value[order][:, live]
    top = seen.at_end[order][:, live] & (value > 0.5 * value.max())
    mean = np.add.reduceat(value, starts) / count[:, None]
    squares = np.add.reduceat((value - np.repeat(mean, count, 0)) ** 2, starts)
    clean = (count > 1)[:, None] & (np.add.reduceat(top, starts) == 0)
    freedom = np.broadcast_to((count - 1)[:, None], mean.shape)
    return mean[clean], (squares / np.maximum(freedom, 1))[clean], freedom[clean].astype(float)


def rounded(sigma2: Floats) -> Floats:
    """Variance of rounded readings about their own means, codes squared.

    sigma^2 + 1/12 - sum_k exp(-4 pi^2 k^2 sigma^2) / (2 pi^2 k^2), averaged over where
    between two codes the mean lies: rounding hides a noise far below one code.
    """
    k2 = np.arange(1, HARMONICS + 1)[:, None] ** 2 * np.pi**2
    hidden = (np.exp(-4 * k2 * sigma2) / (2 * k2)).sum(0)
    return np.asarray(sigma2 + 1 / 12 - hidden)


def photon_transfer(
    mean: Floats,
    variance: Floats,
    freedom: Floats,
    black: float,
    step: float,
    dark: tuple[float, int] | None,
) -> CurveFit:
    """read_noise and per_electron: noise^2 = read^2 + gain (mean - black), then rounded.

    dark: (variance, degrees of freedom) of dark frames, if they tell. Readings within
    LOWEST_CODES of the lowest code are left out: what is cut off there is not noise.
    """
    inside = mean > LOWEST_CODES * step
    mean, variance, freedom = mean[inside], variance[inside], freedom[inside]
    if len(mean) < 2 * BINS:
        raise DataError(f"expected {2 * BINS} repeats above black, got {len(mean)}. Record more.")
    order = np.argsort(mean, kind="stable")
    bins = np.array_split(order, BINS)
    dof = np.array([freedom[b].sum() for b in bins])
    x = np.array([(freedom[b] * (mean[b] - black)).sum() for b in bins]) / dof
    y = np.array([(freedom[b] * variance[b]).sum() for b in bins]) / dof
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


def _off_law(x: Floats, y: Floats, sigma: Floats, p: Floats) -> Floats:
    return (rounded(np.maximum(p[0] ** 2 + p[1] * x, 0.0)) - y) / sigma


def decorrelation(seen: Observations, live: Ints) -> tuple[float, float]:
    """Rate 1 / tau of the field, Hz, and its standard error; (0, NaN) without repeats.

    Frames of one drive, a time apart, correlate as exp(-2 time / tau) about the mean
    over drives and pixels; noise of frames is independent and drops out.
    """
    counts = np.bincount(seen.group)
    again = np.flatnonzero(counts > 1)
    lag, product, power = [], [], []
    for group in again:
        rows = np.flatnonzero(seen.group == group)
        value = seen.value[rows][:, live]
        centred = value - value.mean()
        for a, b in zip(*np.triu_indices(len(rows), 1), strict=True):
            if len(rows) > LAGS and (b - a) % max(1, len(rows) // LAGS):
                continue
            lag.append(abs(float(seen.clock_s[rows[b]] - seen.clock_s[rows[a]])))
            product.append(float((centred[a] * centred[b]).mean()))
            power.append(group)
    times = np.array(lag)
    if not len(times) or times.max() < 4 * max(float(times.min()), 1e-12):
        return 0.0, np.nan
    ln, scale = _ratios(times, np.array(product), np.array(power))
    span = float(times.max())
    found = curve(
        [RATE], lambda p: (scale * np.exp(-2 * p[0] * times) - ln), [0.1 / span],
        scale=[1 / span], in_sigmas=False,
    )  # fmt: skip
    # Pairs of frames of one drive share the frames: drives count, not pairs.
    shared = np.sqrt(len(times) / max(len(again), 1))
    return float(found.values[0]), float(found.errors[0] * shared)


def _ratios(times: Floats, product: Floats, group: Floats) -> tuple[Floats, Floats]:
    """Products over those at the shortest lag of the same drive, and their nominal one."""
    short = times <= 2 * times.min()
    base = {g: product[short & (group == g)].mean() for g in np.unique(group[short])}
    typical = float(np.mean(list(base.values())))
    own = np.array([base.get(g, typical) for g in group])
    return product / np.maximum(own, 1e-3 * abs(typical)), np.ones(len(times))
