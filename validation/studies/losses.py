"""What non-idealities cost: accuracy lost, the severity at which it is lost, interactions.

All losses are fractions. Errors join two sources: the spread over seeds, and the
test set being a sample. The same test images are used throughout, so that the
second is overstated by counting it as independent between severities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.key import Key
from validation.summary import binomial_error

REPLICATES = 1000
CONFIDENCE = 0.95

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Accuracy over severity. severities: (s,) rising from 0. accuracy: (s, seeds).

    images: in the test set, the same for all of them.
    """

    severities: Numbers
    accuracy: Numbers
    images: int

    @staticmethod
    def of(severities: Sequence[float], accuracy: Numbers, images: int) -> Curve | None:
        """Without severities and then seeds where something is missing; None if no
        severity 0, no other one or no seed is left."""
        order = np.argsort(severities)
        s, a = np.asarray(severities, np.float64)[order], np.asarray(accuracy, np.float64)[order]
        known = np.isfinite(a).any(axis=1)
        s, a = s[known], a[known]
        a = a[:, np.isfinite(a).all(axis=0)]
        if len(s) < 2 or s[0] != 0 or a.shape[1] == 0:
            return None
        return Curve(s, a, images)

    @property
    def mean(self) -> Numbers:
        return self.accuracy.mean(axis=1)


@dataclass(frozen=True)
class Loss:
    """A loss of accuracy and its standard error, fractions."""

    value: float
    error: float


@dataclass(frozen=True)
class Threshold:
    """The severity at which a loss is reached, with a CONFIDENCE interval.

    math.inf: not up to severity 1.
    """

    severity: float
    low: float
    high: float


def loss(curve: Curve, at: int = -1) -> Loss:
    """Accuracy lost from severity 0 to the one numbered `at`; the last by default."""
    return difference(curve.accuracy[0] - curve.accuracy[at], curve.mean[[0, at]], curve.images)


def difference(values: Numbers, accuracies: Numbers, images: int) -> Loss:
    """Mean of `values`, one per seed, that are sums and differences of `accuracies`."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    sampled = sum(binomial_error(float(p), images) ** 2 for p in accuracies)
    return Loss(float(values.mean()), math.sqrt(error**2 + sampled))


def threshold(curve: Curve, lost: float, key: Key) -> Threshold:
    """The severity at which `lost` of the accuracy at severity 0 is gone.

    The curve of means is made falling (isotonic regression), then straight lines
    join its points. Interval: REPLICATES draws, each of seeds with replacement
    and of a binomial error of the test set at every severity. It trusts no
    straight line: a draw counts with both computed severities between which it
    crosses.
    """
    drawn = np.concatenate([curve.mean[None], _replicates(curve, key)])
    found = crossings(curve.severities, falling(drawn), lost)
    tail = 100 * (1 - CONFIDENCE) / 2
    low = np.percentile(_computed(curve.severities, found[1:], 1), tail, method="lower")
    high = np.percentile(_computed(curve.severities, found[1:], 0), 100 - tail, method="higher")
    return Threshold(float(found[0]), float(low), float(high))


def _computed(severities: Numbers, found: Numbers, before: int) -> Numbers:
    """The computed severity from `found` on, or the one before it; inf stays."""
    places = np.searchsorted(severities, found) - before
    return np.where(np.isinf(found), np.inf, severities[places.clip(0, len(severities) - 1)])


def _replicates(curve: Curve, key: Key) -> Numbers:
    """Mean curves (REPLICATES, s) as they might have come."""
    generator = key.numpy()
    seeds = curve.accuracy.shape[1]
    picked = generator.integers(seeds, size=(REPLICATES, seeds))
    means = curve.accuracy[:, picked].mean(axis=2).T
    spread = np.sqrt(np.clip(curve.mean * (1 - curve.mean), 0, None) / curve.images)
    return means + spread * generator.standard_normal(means.shape)


def falling(curves: Numbers) -> Numbers:
    """Least-squares curves (n, s) that never rise, one for each row.

    g_i = min over a <= i of max over b >= i of the mean of y_a .. y_b.
    """
    n, s = curves.shape
    sums = np.concatenate([np.zeros((n, 1)), np.cumsum(curves, axis=1)], axis=1)
    out = np.full_like(curves, np.inf)
    for i in range(s):
        for a in range(i + 1):
            best = np.max(
                [(sums[:, b + 1] - sums[:, a]) / (b + 1 - a) for b in range(i, s)], axis=0
            )
            out[:, i] = np.minimum(out[:, i], best)
    return out


def crossings(severities: Numbers, curves: Numbers, lost: float) -> Numbers:
    """Where falling curves (n, s) first lie `lost` below their start; inf if nowhere."""
    below = curves - (curves[:, :1] - lost)
    out = np.full(len(curves), np.inf)
    for i in range(1, len(severities)):
        here = np.isinf(out) & (below[:, i] <= 0)
        high, low = below[here, i - 1], below[here, i]
        step = severities[i] - severities[i - 1]
        out[here] = severities[i - 1] + step * high / (high - low)
    return out


def interaction(
    base: Numbers, first: Numbers, second: Numbers, both: Numbers, images: int
) -> Loss | None:
    """Loss of both together minus the sum of the two losses; one accuracy per seed each.

    Above 0: together they cost more than one by one. None where seeds are missing.
    """
    known = np.isfinite(base + first + second + both)
    if not known.any():
        return None
    base, first, second, both = (x[known] for x in (base, first, second, both))
    values = (base - both) - ((base - first) + (base - second))
    accuracies = np.array([x.mean() for x in (base, first, second, both)])
    return difference(values, accuracies, images)
