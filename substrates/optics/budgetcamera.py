"""What a camera does to speckle: closed forms of the error budget.

Intensities in units of their mean. Pearson is the correlation, over pixels, of
the code with the intensity. Since the intensities of two patterns with Gaussian
fields regress linearly on each other, it multiplies the Pearson of the light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import erfcx, gammainc, gammaln


@dataclass(frozen=True)
class Clipped:
    """Speckle of `patterns` independent ones, mean 1, clipped at `top` times its mean.

    The intensity follows a gamma law of order `patterns` (Goodman); one pattern
    is exponential.
    """

    top: float
    patterns: float = 1

    @property
    def inside(self) -> float:
        """Fraction of pixels below full scale; 1 - exp(-top) for one pattern."""
        return self._below(0)

    @property
    def lit(self) -> float:
        """Mean of the intensity of the pixels below full scale, counting others as 0."""
        return self._below(1)

    @property
    def mean(self) -> float:
        """Mean of min(I, top)."""
        return self._below(1) + self.top * (1 - self._below(0))

    @property
    def variance(self) -> float:
        """Of min(I, top); 1 - 2 a exp(-a) - exp(-2 a) for one pattern."""
        second = self._squared + self.top**2 * (1 - self._below(0))
        return second - self.mean**2

    @property
    def covariance(self) -> float:
        """Of I with min(I, top); 1 - (1 + a) exp(-a) for one pattern."""
        return self._squared + self.top * (1 - self._below(1)) - self.mean

    @property
    def density(self) -> float:
        """Of the intensity at full scale; exp(-top) for one pattern."""
        m = self.patterns
        log = m * math.log(m) + (m - 1) * math.log(self.top) - m * self.top - float(gammaln(m))
        return math.exp(log)

    @property
    def pearson(self) -> float:
        """Of I with min(I, top): cov / sqrt(var I var min).

        For one pattern [1 - (1 + a) e^-a] / sqrt(1 - 2 a e^-a - e^-2a): 0.983 at
        a = 4, whatever the light.
        """
        return self.covariance * math.sqrt(self.patterns / self.variance)

    @property
    def _squared(self) -> float:
        return (1 + 1 / self.patterns) * self._below(2)

    def _below(self, moment: int) -> float:
        return float(gammainc(self.patterns + moment, self.patterns * self.top))


def noise(clipped: Clipped, per_intensity: float, constant: float) -> float:
    """Pearson lost to noise of variance per_intensity * I + constant, in units of mean^2.

    Shot noise has per_intensity 1 / N (N electrons at mean intensity), read noise
    constant (sigma / N)^2. For one unclipped pattern [1 + 1/N + (sigma/N)^2]^-1/2.
    Only pixels below full scale keep their noise; to first order full scale also
    cuts the noise of those near it. Valid for noise below 0.3 of full scale.
    """
    top_noise = per_intensity * clipped.top + constant
    # Beyond its range the first-order correction fades instead of growing.
    at_top = clipped.density * top_noise * math.exp(-top_noise / clipped.top**2)
    variance = clipped.variance + per_intensity * clipped.lit + constant * clipped.inside
    covariance = math.exp(-(clipped.top - 1) * at_top / 2 / clipped.covariance)
    cut = math.exp(-(clipped.top - clipped.mean) * at_top / variance)
    return covariance * math.sqrt(clipped.variance / (variance * cut))


@dataclass(frozen=True)
class Floor:
    """Codes cut at zero: a camera without a black level, read noise s around dark pixels.

    read_noise: s, Gaussian, in units of the mean intensity. Exact for one
    unclipped pattern, I exponential, n normal of variance s^2, Y = max(I + n, 0):
    <Y> = 1/2 + r + G, <Y^2> = 1 + 2 r + s^2 / 2 + 2 G, <I Y> = 1 + 2 r + (2 - s^2) G
    with r = s / sqrt(2 pi), G = exp(s^2 / 2) Phi(-s).
    """

    read_noise: float

    @property
    def gain(self) -> float:
        """Pearson over that with negative codes; about 1 + sqrt(2 / pi) s^3 / 3."""
        return self.covariance * math.sqrt((1 + self.read_noise**2) / self.variance)

    @property
    def mean(self) -> float:
        return 0.5 + self._r + self._g

    @property
    def variance(self) -> float:
        """Of the cut signal; 1 + s^2 without the cut."""
        square = 1 + 2 * self._r + self.read_noise**2 / 2 + 2 * self._g
        return square - self.mean**2

    @property
    def covariance(self) -> float:
        """Of the intensity and the cut signal; 1 without the cut."""
        return 1 + 2 * self._r + (2 - self.read_noise**2) * self._g - self.mean

    @property
    def _r(self) -> float:
        return self.read_noise / math.sqrt(2 * math.pi)

    @property
    def _g(self) -> float:
        return float(erfcx(self.read_noise / math.sqrt(2))) / 2


def gain_spread(clipped: Clipped, variance: float, spread: float) -> float:
    """Pearson lost to gains of the pixels with a relative r.m.s. `spread` (PRNU).

    variance: of the signal with its noise. [1 + (M + 1) spread^2]^-1/2 without
    noise and clipping, for M patterns.
    """
    square = clipped.variance + clipped.mean**2
    return float((1 + spread**2 * square / variance) ** -0.5)


def stuck_pixels(fraction: float, codes: int, top: float, mean: float, variance: float) -> float:
    """Pearson when a fraction of pixels shows a code of their own, uniform on the range.

    codes: of the camera; top: full scale in units of mean intensity; mean,
    variance: of the healthy pixels, same units.
    """
    spread = top**2 * (codes + 1) / (12 * (codes - 1))
    mixed = (1 - fraction) * variance + fraction * spread
    mixed += fraction * (1 - fraction) * (mean - top / 2) ** 2
    return (1 - fraction) * math.sqrt(variance / mixed)
