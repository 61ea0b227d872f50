"""What rest does to written weights, from reads some time after a write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from substrates.memristor.twinrows import FIRST_S, LONGER, Ints, Mask, log_age
from twin.observations import Observations
from twin.rounding import MEDIAN_SQUARE
from twin.twinmodel import Direction, Floats

OUTLIER_SIGMAS = 5.0
HIGHEST_SPREAD, HIGHEST_EXPONENT, LOWEST_EXPONENT = 0.2, 1.0, -0.5
NO_POWER_LAW = 1e-4
"""Chance of a power law's chi-square below which it is not one."""

Variance = Callable[[Floats, Floats], Floats]


class Drift(NamedTuple):
    """exponent and spread with their standard errors, (0, NaN) where open."""

    exponent: float
    exponent_error: float
    spread: float
    spread_error: float
    unidentified: tuple[Direction, ...]

    def kept(self, ln: Floats | float) -> Floats:
        """What is left of weights `ln` of an age in seconds after a write."""
        return np.exp(-self.exponent * np.asarray(ln, np.float64))


class Readout(NamedTuple):
    """How the live columns read: their offsets, (live,), the variance of a reading of a
    drive and weights, and the unit of a reading."""

    live: Ints
    offset: Floats
    variance: Variance
    unit: float


class _Older(NamedTuple):
    """A stretch of a write against its main one. ln: of the ratio of ages. ratio: of weights,
    with its standard error by noise. pull: (inputs * live,), how the ratio goes with an error
    of each main weight, of variance base2, and with the cells' own drift. excess: variance
    per weight beyond noise, and its standard error."""

    ln: float
    ratio: float
    noise: float
    pull: Floats
    base2: float
    excess: float
    excess_error: float

    @property
    def cells2(self) -> float:
        """Variance per weight by the cells' own drift, per ln^2."""
        return max(self.excess, 0.0) / self.ln**2

    @property
    def error(self) -> float:
        shift2 = (self.base2 + self.cells2 * self.ln**2) * float(self.pull @ self.pull)
        return float(np.sqrt(self.noise**2 + shift2))


def drift(
    seen: Observations,
    stretch: Ints,
    main: Mask,
    numbers: Sequence[int],
    weights: Floats,
    errors: Floats,
    readout: Readout,
) -> Drift:
    """Exponent of a power law and spread of cells, from the oldest stretch of each write.

    weights, errors: (writes, inputs, live), of the main stretch of each write. The younger
    ones share the oldest's cells and its main weights, and add next to nothing; they test
    the law, and where it fails errors grow by the root of chi-square per freedom.
    """
    found = [
        [_compare(seen, base, rows, w, error, readout) for base, rows in pairs]
        for number, w, error in zip(numbers, weights, errors, strict=True)
        if (pairs := _later(seen, stretch, main, number))
    ]
    if not found:
        why = "no reads long enough after a write; taken as 0, and what it holds as it was read"
        names = ("drift_exponent", "drift_spread")
        return Drift(0.0, np.nan, 0.0, np.nan, tuple(Direction({n: 1.0}, why) for n in names))
    oldest = [max(own, key=lambda o: o.ln) for own in found]
    exponent, error = _exponent(oldest)
    scale, told = _tested(found, exponent)
    spread, spread_error = _spread(oldest)
    return Drift(exponent, error * scale, spread, spread_error * scale, told)


def _exponent(oldest: list[_Older]) -> tuple[float, float]:
    """The mean of -ln(ratio) / ln(age), by the weight of each write."""
    ratio = np.array([max(o.ratio, 1e-3) for o in oldest])
    ln, error = np.array([o.ln for o in oldest]), np.array([o.error for o in oldest])
    weight = (ln * ratio / error) ** 2
    mean = float((weight * -np.log(ratio) / ln).sum() / weight.sum())
    limited = float(np.clip(mean, LOWEST_EXPONENT, HIGHEST_EXPONENT))
    return limited, float(1 / np.sqrt(weight.sum()))


def _spread(oldest: list[_Older]) -> tuple[float, float]:
    """Root of the excess: 2 spread^2 ln^2 of a pair, linear in the square."""
    ln2 = np.array([o.ln**2 for o in oldest])
    excess2, error = (np.array([getattr(o, n) for o in oldest]) for n in ("excess", "excess_error"))
    weight = (2 * ln2 / error) ** 2
    square = float((weight * excess2 / (2 * ln2)).sum() / weight.sum())
    square_error = float(1 / np.sqrt(weight.sum()))
    spread = float(np.sqrt(max(square, 0.0)))
    spread_error = square_error / (2 * spread) if square > square_error else np.sqrt(square_error)
    return min(spread, HIGHEST_SPREAD), float(spread_error)


def _tested(found: list[list[_Older]], exponent: float) -> tuple[float, tuple[Direction, ...]]:
    """Factor on the errors, and what to say, where ages follow no power law."""
    from scipy.special import chdtrc

    freedom = sum(map(len, found)) - 1
    chi2 = sum(_chi2(own, exponent) for own in found)
    if freedom < 1 or chdtrc(freedom, chi2) > NO_POWER_LAW:
        return 1.0, ()
    scale = float(np.sqrt(chi2 / freedom))
    why = (
        f"weights follow no power law of age (chi-square {chi2:.0f} of {freedom}); errors are "
        f"{scale:.1f} times what noise explains, and ages that were not read are a guess"
    )
    return scale, (Direction({"drift_exponent": 1.0, "drift_spread": 1.0}, why),)


def _chi2(own: list[_Older], exponent: float) -> float:
    """Of the stretches of one write, by the joint covariance of their ratios."""
    ln, ratio, noise = (np.array([getattr(o, n) for o in own]) for n in ("ln", "ratio", "noise"))
    pull = np.stack([o.pull for o in own])
    base2, cells2 = max(o.base2 for o in own), max(o.cells2 for o in own)
    shared = (base2 + cells2 * np.outer(ln, ln)) * (pull @ pull.T)
    covariance = np.diag(noise**2) + shared
    off = ratio - np.exp(-exponent * ln)
    return float(off @ np.linalg.solve(covariance, off))


def _later(seen: Observations, stretch: Ints, main: Mask, number: int) -> list[tuple[Mask, Mask]]:
    """(main rows, rows) of each stretch of a write that is clearly older than its main one."""
    own = seen.write == number
    base = own & main
    young = max(float(np.median(seen.age_s[base])), FIRST_S)
    others = [own & (stretch == s) for s in np.unique(stretch[own & ~main])]
    return [(base, rows) for rows in others if float(np.median(seen.age_s[rows])) > LONGER * young]


def _compare(
    seen: Observations, base: Mask, rows: Mask, weights: Floats, errors: Floats, by: Readout
) -> _Older:
    x, y = seen.drive[rows], seen.value[rows][:, by.live] - by.offset
    mean = x @ weights / by.unit
    noise = by.variance(x, weights)
    # About each column's mean: drives are positive, so that without it a single
    # direction, that of all weights together, would outweigh all others.
    near = x - x.mean(0)
    # How far an error of one in every weight, independent, moves a reading.
    lever = (near**2).sum(1)[:, None] / by.unit**2
    known = noise * (1 - 1 / len(x)) + near**2 @ np.nan_to_num(errors**2) / by.unit**2
    free = (~seen.at_end[rows][:, by.live]).astype(np.float64)
    for _ in range(2):
        ratio, left = _ratio(mean, y, free / noise)
        free = free * _near(left**2 / known)
    ratio, left = _ratio(mean, y, free / noise)
    left2 = (left - (free * left).sum(0) / np.maximum(free.sum(0), 1)) ** 2
    total = float((free * lever).sum())
    excess = float((free * (left2 - known)).sum()) / total
    pulled = (x.T @ x) @ weights
    base2 = float(np.nan_to_num(errors**2).mean())
    return _Older(
        ln=log_age(seen.age_s[rows]) - log_age(seen.age_s[base]),
        ratio=ratio,
        noise=float(np.sqrt(1 / (free / noise * mean**2).sum())),
        pull=(pulled / (weights * pulled).sum()).ravel(),
        base2=base2,
        excess=excess,
        excess_error=_excess_error(near, noise * by.unit**2, max(excess, 0.0) + base2),
    )


def _excess_error(near: Floats, noise: Floats, weights2: float) -> float:
    """Standard error of the variance of independent weights: of `weights2` themselves, which
    the drives see in as many directions as they have, and of the noise, per reading."""
    gram = near.T @ near
    lever = max(float(np.trace(gram)), 1e-300)
    directions = weights2**2 * float((gram**2).sum()) / lever**2
    mixed = 2 * weights2 * float(noise.mean()) / lever
    alone = float((noise**2).mean()) * len(near) / lever**2
    return float(np.sqrt(2 * (directions + mixed + alone) / noise.shape[1]))


def _ratio(mean: Floats, y: Floats, weight: Floats) -> tuple[float, Floats]:
    ratio = float((weight * mean * y).sum() / (weight * mean**2).sum())
    return ratio, y - ratio * mean


def _near(square: Floats) -> Mask:
    """Whether squares, in units of what is known, are as near as most of them let expect."""
    usual = max(1.0, float(np.median(square)) / MEDIAN_SQUARE)
    return np.asarray(square < OUTLIER_SIGMAS**2 * usual)
