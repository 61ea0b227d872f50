"""Which designs no other beats: dominance, the front, and how sure that is.

Values are arrays (designs, objectives) that all want to be small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from twin.key import Key

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVEL = 0.95
"""Of all intervals."""

RESAMPLES = 1000


def front(values: Array) -> Mask:
    """Which rows of (n, objectives) no other row dominates; equal rows stay together."""
    count = len(values)
    best = np.ones(count, bool)
    for row in range(count):
        if best[row]:
            # Whoever is dominated by a dominated row is dominated by the one above it too.
            best &= ~dominated_by(values, values[row])
    return best


def dominated_by(values: Array, one: Array) -> Mask:
    """Which rows are nowhere better than `one` and somewhere worse."""
    return np.all(one <= values, axis=-1) & np.any(one < values, axis=-1)


@dataclass(frozen=True)
class Scatter:
    """How values differ between seeds, pooled over all designs with two seeds or more.

    residuals: (k, objectives), deviations from each design's mean, widened by
    sqrt(n / (n - 1)) for the mean that was fitted. variance: (objectives,), unbiased.
    freedom: degrees of freedom behind it; 0 while every design has one seed.
    That the scatter is the same for all designs is an assumption: it is a mean.
    """

    residuals: Array
    variance: Array
    freedom: int

    @classmethod
    def of(cls, groups: list[Array]) -> Scatter:
        """From the values (seeds, objectives) of each design."""
        width = groups[0].shape[1] if groups else 0
        several = [group for group in groups if len(group) > 1]
        if not several:
            return cls(np.zeros((0, width)), np.full(width, np.nan), 0)
        centred = [group - group.mean(axis=0) for group in several]
        freedom = sum(len(group) - 1 for group in several)
        squares = sum((part**2).sum(axis=0) for part in centred)
        widened = [part * np.sqrt(len(part) / (len(part) - 1)) for part in centred]
        return cls(np.concatenate(widened), np.asarray(squares / freedom), freedom)

    def reach(self, counts: NDArray[np.int64], confidence: float) -> Array:
        """(designs, objectives): how far a mean of so many seeds may be off, one-sided;
        0 for what does not scatter, infinite while nothing is known."""
        if self.freedom == 0:
            return np.full((len(counts), len(self.variance)), np.inf)
        sigma = np.sqrt(self.variance) * student.ppf(confidence, self.freedom)
        return np.asarray(sigma / np.sqrt(counts)[:, None])


@dataclass(frozen=True)
class Certainty:
    """low, high: (designs, objectives), intervals of the means over seeds; NaN without a
    second seed anywhere. share: (designs,), how often each is on the front when the
    scatter over seeds is drawn again; NaN likewise."""

    low: Array
    high: Array
    share: Array


def certainty(
    means: Array, counts: NDArray[np.int64], scatter: Scatter, allowed: Mask, key: Key
) -> Certainty:
    """Bootstrap over pooled residuals.

    means: (designs, objectives); counts: seeds of each; allowed: designs that may
    be on the front. The test images are the same for all seeds: what another
    test set would give is not in these intervals.
    """
    if scatter.freedom == 0:
        none = np.full(means.shape, np.nan)
        return Certainty(none, none, np.full(len(means), np.nan))
    draws = resampled(counts, scatter, key)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = means + np.quantile(draws, ends, axis=0)
    share = np.zeros(len(means))
    inside = np.flatnonzero(allowed)
    for draw in draws:
        share[inside] += front((means + draw)[inside])
    return Certainty(low, high, share / len(draws))


def resampled(counts: NDArray[np.int64], scatter: Scatter, key: Key) -> Array:
    """(RESAMPLES, designs, objectives): errors of means of so many seeds."""
    rng, pool = key.numpy(), scatter.residuals
    errors = np.empty((RESAMPLES, len(counts), pool.shape[1]))
    for number in np.unique(counts):
        rows = np.flatnonzero(counts == number)
        picked = rng.integers(len(pool), size=(RESAMPLES, len(rows), number))
        errors[:, rows] = pool[picked].mean(axis=2)
    return errors
