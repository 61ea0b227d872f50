"""Sample moments with their standard errors, without assuming a normal law.

Each standard error is that of the statistic's influence function, so that it
holds for bounded and two-valued samples too. Imports numpy and torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

FIVE_SIGMA = 5.733e-7
"""Two-sided probability beyond five standard deviations of a normal law."""

Sample = Tensor | NDArray[np.floating]


@dataclass(frozen=True)
class Estimate:
    """A statistic of n independent values, and its standard error."""

    value: float
    standard_error: float
    n: int

    def times(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.standard_error * abs(factor), self.n)


def mean(sample: Sample) -> Estimate:
    """Mean over all values."""
    return _mean_of(_flat(sample))


def variance(sample: Sample, about: float | None = None) -> Estimate:
    """Variance; about a known mean if given."""
    x = _flat(sample)
    squares = (x - (x.mean() if about is None else about)) ** 2
    found = _mean_of(squares)
    unbiased = 1.0 if about is not None else len(x) / (len(x) - 1)
    return found.times(unbiased)


def standard_deviation(sample: Sample, about: float | None = None) -> Estimate:
    """Square root of the variance, its error by propagation."""
    found = variance(sample, about)
    root = math.sqrt(found.value)
    error = found.standard_error / (2 * root) if root > 0 else 0.0
    return Estimate(root, error, found.n)


def correlation(first: Sample, second: Sample) -> Estimate:
    """Pearson's correlation of pairs, error from its influence function."""
    x, y = _standardised(first), _standardised(second)
    r = float((x * y).mean())
    influence = x * y - r * (x**2 + y**2) / 2
    return Estimate(r, float(influence.std()) / math.sqrt(len(x)), len(x))


def fraction(hits: int, n: int, expected: float) -> Estimate:
    """A fraction of n trials, with the binomial error of the expected fraction."""
    return Estimate(hits / n, math.sqrt(expected * (1 - expected) / n), n)


def largest_gap(first: Sample, second: Sample) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov: (statistic, its bound).

    The bound is exceeded with the probability of five standard deviations if
    both samples have the same continuous law (asymptotic; n above about 100).
    """
    x, y = np.sort(_flat(first)), np.sort(_flat(second))
    both = np.concatenate([x, y])
    steps = [np.searchsorted(s, both, side="right") / len(s) for s in (x, y)]
    scale = math.sqrt(math.log(2 / FIVE_SIGMA) / 2)
    bound = scale * math.sqrt(1 / len(x) + 1 / len(y))
    return float(np.abs(steps[0] - steps[1]).max()), bound


def _flat(sample: Sample) -> NDArray[np.float64]:
    values = sample.detach().cpu().numpy() if isinstance(sample, Tensor) else sample
    return np.asarray(values, np.float64).ravel()


def _mean_of(x: NDArray[np.float64]) -> Estimate:
    return Estimate(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x)), len(x))


def _standardised(sample: Sample) -> NDArray[np.float64]:
    x = _flat(sample)
    return np.asarray((x - x.mean()) / x.std(), np.float64)
