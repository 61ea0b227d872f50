"""A camera's parameters from pairs of frames: the photon-transfer method of EMVA 1288.

For the mean mu and the temporal variance s^2 of the codes at any exposure,
s^2 = K^2 sigma_d^2 + 1/12 + K (mu - offset), and the dark mean grows as
offset + K I_d t. Fit once to all levels; errors by leaving out groups of pixels.
Valid from 0.24 DN^2 of dark variance on, for light that is steady within an exposure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import polygamma

from substrates.optics.cameraneeds import require_levels, require_positive, require_usable
from substrates.optics.frameset import FrameSet
from substrates.optics.levelstats import Moments, measured

Floats = NDArray[np.float64]
QUANTISATION = 1 / 12
"""Variance of rounding, DN^2; right while the noise covers half a code."""

GROUPS = 40
FEWEST_FOR_SPREAD = 4
"""Degrees of freedom of a pixel's dark variance below which it has no map."""

QUIET = 0.1
"""Shot noise of the dark current over the read noise, as variances, up to which
an exposure tells the pixels' read noises apart."""

LEAST_SPREAD_VARIANCE = 2.0
"""DN^2 of dark variance below which the rounding of a quiet pixel depends on where
its mean lies between two codes, and looks like a spread of read noise."""

FLAT = 0.2
"""Spatial contrast of the light above which it is no flat field, but a pattern."""

CONFIDENCE = 0.95
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
UNITS = {
    "gain": "DN/electron",
    "read_noise": "electron",
    "offset": "DN",
    "dark_current": "electron/s",
    "prnu": "1",
    "dsnu": "electron",
    "read_noise_spread": "1",
}
SQUARED = ("read_noise", "prnu", "dsnu", "read_noise_spread")
"""Fitted as squares, which may come out negative by chance."""


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95 % interval, in `unit`."""

    name: str
    value: float
    standard_error: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class CameraFit:
    """What the frames say about their camera.

    estimates: by the names of UNITS; prnu is absent where the light was no flat
    field, read_noise_spread where there were too few dark frames. deviates:
    (GROUPS, parameters) draws of the fit's error, for predictive checks, in
    the order of `parameters` (squares for SQUARED). maps, map_errors: by the
    names of pixelmaps.NAMES, (pixels,). counts: pixels left out, by reason.
    """

    frames: FrameSet
    moments: Moments
    estimates: Mapping[str, Estimate]
    parameters: Mapping[str, float]
    deviates: Floats
    maps: Mapping[str, Floats]
    map_errors: Mapping[str, Floats]
    full_well_electrons: float | None

    def value(self, name: str) -> float:
        """The estimate of that name, 0 where it is absent."""
        return self.estimates[name].value if name in self.estimates else 0.0


def fitted(found: FrameSet) -> CameraFit:
    """The parameters of the camera that took the frames. DataError if they do not suffice."""
    require_levels(found)
    moments = measured(found)
    require_usable(found, moments)
    law = _Law.of(moments)
    parts = law.parts(moments)
    whole = law.solve(parts.sum(0))
    # Pixels spread over the groups, so that shading is shared by all of them.
    rest = np.array([law.solve(parts.sum(0) - part) for part in parts])
    names = law.names
    centre = rest.mean(0)
    deviates = (rest - centre) * math.sqrt(GROUPS - 1)
    errors = np.sqrt((deviates**2).mean(0))
    parameters = dict(zip(names, whole.tolist(), strict=True))
    require_positive(parameters, found)
    estimates = {
        n: _estimate(n, v, e)
        for n, v, e in zip(names, whole.tolist(), errors.tolist(), strict=True)
    }
    maps, map_errors = law.maps(parameters, moments)
    well = None
    if moments.saturation_dn is not None and moments.saturation_dn < 0.98 * found.top:
        well = (moments.saturation_dn - parameters["offset"]) / parameters["gain"]
    return CameraFit(found, moments, estimates, parameters, deviates, maps, map_errors, well)


def _estimate(name: str, value: float, error: float) -> Estimate:
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, GROUPS - 1)) * error
    low, high = value - half, value + half
    if name in SQUARED:
        low, root, high = (math.sqrt(max(v, 0.0)) for v in (low, value, high))
        # Where the square is not above its error, its error is all there is.
        error = error / (2 * max(root, math.sqrt(error) / 2, 1e-30))
        value = root
    return Estimate(name, value, error, low, high, UNITS[name])


@dataclass(frozen=True)
class _Law:
    """Weights of the linear fits, fixed once; then every estimate follows from sums."""

    time: Floats
    quiet: NDArray[np.bool_]
    intercept: Floats
    slope: Floats
    variance_weight: Floats
    response: Floats | None
    mean_noise: Floats
    spread_dof: int
    surface: Floats | None
    names: tuple[str, ...]

    @staticmethod
    def of(m: Moments) -> _Law:
        mu, s2 = m.level_mean, m.level_variance
        dark = ~m.lit
        weight = np.where(dark & m.used, m.frames / s2, 0.0)
        centre = (weight * m.time).sum() / weight.sum()
        slope = weight * (m.time - centre)
        slope = slope / (slope * m.time).sum()
        intercept = weight / weight.sum() - centre * slope
        expected = _smoothed(mu, s2, m)
        variance_weight = np.where(m.used, (m.frames - 1) * m.pixels_used / expected**2, 0.0)
        b, d = float(intercept @ mu), float(slope @ mu)
        response = None
        full = m.lit & m.used & (m.pixels_used >= len(m.good_pixels))
        if m.contrast <= FLAT and full.any():
            light = np.where(full, mu - b - d * m.time, 0.0)
            response = np.where(full, light * m.frames / s2, 0.0)
            response = response / (response * light).sum()
        gain, floor = _line(mu - b, s2, variance_weight)
        quiet = dark & (gain * (mu - b) <= QUIET * (floor - QUANTISATION))
        quiet &= floor >= LEAST_SPREAD_VARIANCE
        dof = int((m.frames[quiet] - 1).sum())
        names = ["gain", "read_noise", "offset", "dark_current", "dsnu"]
        names += ["prnu"] if response is not None else []
        names += ["read_noise_spread"] if dof >= FEWEST_FOR_SPREAD else []
        return _Law(
            m.time, quiet, intercept, slope, variance_weight, response, s2 / m.frames, dof,
            m.surface if response is not None else None, tuple(names),
        )  # fmt: skip

    def patterns(self, m: Moments) -> tuple[Floats, Floats, Floats]:
        """Of each good pixel: black level (DN), response (mean 1), ln of its dark variance."""
        black = self.intercept @ m.mean
        response = np.ones_like(black)
        if self.response is not None:
            dark = float(self.slope @ m.level_mean) * self.time
            response = self.response @ (m.mean - dark[:, None]) - self.response.sum() * black
            if self.surface is not None:
                # Shading is the lamp's, not the sensor's.
                shade = np.linalg.lstsq(self.surface, response, rcond=None)[0]
                response = response - self.surface @ shade + response.mean()
        dof = (m.frames - 1)[self.quiet]
        pooled = dof @ m.variance[self.quiet] / max(dof.sum(), 1)
        return black, response, np.log(np.maximum(pooled, 1e-3))

    def parts(self, m: Moments) -> Floats:
        """Sums over each group of pixels, (GROUPS, sums)."""
        black, response, ln = self.patterns(m)
        one = np.ones_like(black)
        shifted = black - black.mean()
        kept = m.mask.astype(np.float64)
        rows = [*kept, *(kept * m.mean), *(kept * m.variance)]
        rows += [one, shifted, shifted**2, response, response**2, ln, ln**2]
        group = np.arange(len(black)) % GROUPS
        return np.stack([np.bincount(group, row, GROUPS) for row in rows], axis=1)

    def solve(self, sums: Floats) -> Floats:
        """The parameters in the order of names; SQUARED ones as squares."""
        levels = len(self.time)
        count, mean, variance = sums[: 3 * levels].reshape(3, levels)
        safe = np.maximum(count, 1)
        mu, s2 = mean / safe, variance / safe
        n, c1, c2, r1, r2, l1, l2 = sums[3 * levels :]
        offset, current = float(self.intercept @ mu), float(self.slope @ mu)
        gain, floor = _line(mu - offset, s2, self.variance_weight)
        read = (floor - QUANTISATION) / gain**2
        black_noise = float(self.intercept**2 @ self.mean_noise)
        found = {
            "gain": gain,
            "offset": offset,
            "dark_current": current / gain,
            "read_noise": read,
            "dsnu": (_variance(n, c1, c2) - black_noise) / gain**2,
        }
        if self.response is not None:
            noise = float(self.response**2 @ self.mean_noise)
            noise += self.response.sum() ** 2 * black_noise
            fitted_terms = 0 if self.surface is None else self.surface.shape[1] - 1
            found["prnu"] = _variance(n, r1, r2, fitted_terms) / (r1 / n) ** 2 - noise
        if self.spread_dof >= FEWEST_FOR_SPREAD:
            share = read * gain**2 / float(s2[self.quiet].mean())
            # ln s^2 scatters by itself (chi-square); other noise dilutes the spread.
            scatter = float(polygamma(1, self.spread_dof / 2))
            found["read_noise_spread"] = _spread2(_variance(n, l1, l2) - scatter, share)
        return np.array([found[name] for name in self.names])

    def maps(
        self, found: Mapping[str, float], m: Moments
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Most probable maps given the spread over pixels, and their standard errors."""
        black, response, ln = self.patterns(m)
        gain, maps, errors = found["gain"], {}, {}
        noise = float(self.intercept**2 @ self.mean_noise)
        centred = (black - black.mean()) / gain
        maps["dsnu_electrons"], errors["dsnu_electrons"] = _shrunk(
            centred, found["dsnu"], noise / gain**2
        )
        if "prnu" in found:
            noise = float(self.response**2 @ self.mean_noise) + self.response.sum() ** 2 * noise  # type: ignore[operator, union-attr]
            raw = response / response.mean() - 1
            value, error = _shrunk(raw, found["prnu"], noise)
            maps["response"], errors["response"] = np.maximum(value + 1, 0), error
        if "read_noise_spread" in found:
            scatter = float(polygamma(1, self.spread_dof / 2)) / 4
            value, error = _shrunk((ln - ln.mean()) / 2, found["read_noise_spread"], scatter)
            ratio = np.exp(value)
            ratio /= np.sqrt((ratio**2).mean())
            maps["read_noise_ratio"], errors["read_noise_ratio"] = ratio, ratio * error
        return _with_odd(_spread_out(maps, m, 0.0), found, m), _spread_out(errors, m, np.nan)


def _spread2(excess: float, share: float) -> float:
    """Squared ln spread of a noise that makes up `share` of a variance whose ln varies by `excess`.

    From the log-normal law by quadrature; negative where `excess` is.
    """
    share = min(max(share, 0.05), 1.0)
    first_order = excess / (2 * share) ** 2
    if excess <= 0:
        return first_order

    def surplus(spread: float) -> float:
        ln = np.log(share * np.exp(2 * spread * NODES - 2 * spread**2) + 1 - share)
        return float(WEIGHTS @ ln**2 - (WEIGHTS @ ln) ** 2 - excess)

    # Past that, the quiet pixels sink below the other noise and tell nothing.
    return float(brentq(surplus, 0.0, 1.0)) ** 2 if surplus(1.0) > 0 else first_order


def _shrunk(raw: Floats, spread2: float, noise2: float) -> tuple[Floats, Floats]:
    """Posterior mean and standard deviation of N(0, spread2) seen with noise2."""
    spread2, noise2 = max(spread2, 0.0), max(noise2, 1e-30)
    share = spread2 / (spread2 + noise2)
    return raw * share, np.full_like(raw, math.sqrt(share * noise2))


def _spread_out(maps: Mapping[str, Floats], m: Moments, odd: float) -> dict[str, Floats]:
    """Maps over all pixels; those left out are typical (or, with odd = NaN, unknown)."""
    full = {}
    for name, values in maps.items():
        typical = odd if name == "dsnu_electrons" or np.isnan(odd) else 1.0
        full[name] = np.full(m.pixels, typical)
        full[name][m.good_pixels] = values
    return full


def _with_odd(maps: dict[str, Floats], found: Mapping[str, float], m: Moments) -> dict[str, Floats]:
    """The maps with this sensor's own hot and dead pixels at their places."""
    if len(m.hot_pixels) and found["dark_current"] > 0:
        maps["dark_ratio"] = np.ones(m.pixels)
        ratio = m.hot_growth / (found["gain"] * found["dark_current"])
        maps["dark_ratio"][m.hot_pixels] = np.maximum(ratio, 1)
    if len(m.dead_pixels):
        maps.setdefault("response", np.ones(m.pixels))[m.dead_pixels] = 0
    return maps


def _smoothed(mu: Floats, s2: Floats, m: Moments) -> Floats:
    """Variances as a line over the mean: weights that do not follow their own error."""
    weight = np.where(m.used, (m.frames - 1) / s2**2, 0.0)
    for _ in range(2):
        gain, floor = _line(mu, s2, weight)
        line = np.maximum(gain * mu + floor, 0.5 * s2)
        weight = np.where(m.used, (m.frames - 1) / line**2, 0.0)
    return np.asarray(line, np.float64)


def _line(x: Floats, y: Floats, weight: Floats) -> tuple[float, float]:
    """Slope and intercept of y over x."""
    total = weight.sum()
    centre = (weight * x).sum() / total
    slope = (weight * (x - centre) * y).sum() / (weight * (x - centre) ** 2).sum()
    return float(slope), float((weight * y).sum() / total - slope * centre)


def _variance(n: float, first: float, second: float, terms: int = 0) -> float:
    return float((second - first**2 / n) / (n - 1 - terms))
