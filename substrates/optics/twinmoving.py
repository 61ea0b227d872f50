"""How fast a medium moves, from frames of the same drives over time.

Field and intensity of a pixel are those of a fully developed speckle whose field
correlates as exp(-t / tau), and so its intensity as exp(-2 t / tau) (Siegert relation;
J. W. Goodman, Speckle Phenomena in Optics). Times in s, rates in Hz.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from substrates.optics.twinnoise import widened
from twin.observations import Observations
from twin.solving import curve
from twin.twinmodel import Floats, Parameter

Ints = npt.NDArray[Any]

RATE = Parameter(name="decorrelation_hz", unit="Hz", low=0.0, high=1e6)
NOISE = Parameter(name="noise", unit="1", low=-0.02, high=1e3)
OFFSETS = 24
"""Frames of one drive are paired at so many distances in their order, nearest to furthest."""

TIMES = 12
"""Groups of like time between two frames."""

BLOCKS = 40
"""Neighbouring pixels that are left out together for the error: they may share a speckle."""

FEWEST_BLOCKS = 3
SYSTEMATIC = 0.05
"""Relative error of the law itself, with few channels: measured with simulated rigs."""

ROUNDS = 3
SPAN = 4.0
"""Ratio of the longest to the shortest time between frames, below which no rate is found."""


MOVED = 0.6
"""Of a whole decorrelation: frames further apart than this after the shortest time tell no
rate, be it motion or noise."""


class Motion(NamedTuple):
    """rate: 1 / tau of the field, Hz. error: its standard error, NaN if unknown; then why."""

    rate: float
    error: float
    why: str = ""


class _Pairs(NamedTuple):
    """time: (k,), s. apart, size: (k, blocks). weight: (k,), pairs that are independent."""

    time: Floats
    apart: Floats
    size: Floats
    weight: Floats


def decorrelation(seen: Observations, intensity: Floats) -> Motion:
    """How fast the field decorrelates, from frames of the same drives.

    intensity: (n, pixels) of rows of `seen`, without the black level; NaN is left out. Of two
    frames, t apart, of one drive <(I - I')^2> / 2 = noise + <I> <(I + I') / 2>
    (1 - exp(-2 t / tau)): what stands still drops out, be it a pattern or uneven light.
    The error is a jackknife over pixels, the only speckles that are surely independent;
    of few of them it is widened to Student's 95 % interval. The noise may grow with I
    only. Light whose power walks looks like a moving medium.
    """
    pairs = _paired(seen, intensity)
    blocks = pairs.size.shape[1]
    if len(pairs.time) < 3 or pairs.time.max() < SPAN * pairs.time.min():
        return Motion(0.0, np.nan, "no drive comes again later; taken as 0")
    if blocks < FEWEST_BLOCKS:
        return Motion(0.0, np.nan, f"{FEWEST_BLOCKS} live pixels are needed; taken as 0")
    if _ratio(pairs, np.ones(blocks, bool))[0] > MOVED:
        why = "frames differ fully after the shortest time; noise and fast motion look alike"
        return Motion(0.0, np.nan, f"{why}; taken as 0")
    everything = np.ones(blocks, bool)
    best = _best(pairs, _ratio(pairs, everything))
    # From the best of all, one round is enough for those that lack a block.
    without = np.array(
        [_fitted(pairs, _ratio(pairs, np.arange(blocks) != b), best, 1)[1] for b in range(blocks)]
    )[:, 1]
    error = np.sqrt(((without - without.mean()) ** 2).sum() * (blocks - 1) / blocks)
    rate = max(0.0, float(best[1]))
    return Motion(rate, float(np.hypot(error * widened(blocks - 1), SYSTEMATIC * rate)))


def _paired(seen: Observations, intensity: Floats) -> _Pairs:
    """Sums over pairs of frames of one drive, by time apart and block of pixels."""
    mean = np.nanmean(intensity, 0)
    lit = mean > 0
    intensity, mean = intensity[:, lit], mean[lit]
    count = min(BLOCKS, intensity.shape[1])
    place = np.arange(intensity.shape[1]) * count // max(intensity.shape[1], 1)
    starts = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    time, apart, size, room = [], [], [], []
    for first, second, span in _places(seen):
        a, b = intensity[first], intensity[second]
        both = np.isfinite(a) & np.isfinite(b)
        gap = seen.clock_s[second] - seen.clock_s[first]
        # Over <I>, not its square: a pixel's own mean scatters about the ensemble's.
        off, sum_ = np.where(both, (a - b) ** 2 / 2 / mean, 0), np.where(both, (a + b) / 2, 0)
        time.append(gap)
        apart.append(np.add.reduceat(off, starts, 1))
        size.append(np.add.reduceat(sum_, starts, 1))
        room.append(np.minimum(1.0, span / np.maximum(gap, 1e-12) / len(gap)))
    if not time:
        return _Pairs(np.zeros(0), np.zeros((0, count)), np.zeros((0, count)), np.zeros(0))
    return _grouped(*(np.concatenate(part) for part in (time, apart, size, room)))


def _places(seen: Observations) -> list[tuple[Ints, Ints, float]]:
    """Rows of the first and the second frame of pairs of one drive, and their whole span."""
    order = np.lexsort((seen.clock_s, seen.group))
    group = seen.group[order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    found: list[tuple[Ints, Ints, float]] = []
    for rows in np.split(order, starts[1:]):
        span = float(seen.clock_s[rows[-1]] - seen.clock_s[rows[0]])
        offsets = np.unique(np.geomspace(1, max(len(rows) - 1, 1), OFFSETS).astype(int))
        found += [(rows[:-k], rows[k:], span) for k in offsets if k < len(rows)]
    return found


def _grouped(time: Floats, apart: Floats, size: Floats, room: Floats) -> _Pairs:
    """Pairs of like time put together; the times are of one order in a group."""
    later = time > 0
    time, apart, size, room = time[later], apart[later], size[later], room[later]
    if not len(time):
        return _Pairs(time, apart, size, room)
    edges = np.geomspace(time.min(), time.max() * (1 + 1e-9), TIMES + 1)
    where = np.clip(np.searchsorted(edges, time, "right") - 1, 0, TIMES - 1)
    rows = [where == k for k in range(TIMES) if (where == k).any()]
    return _Pairs(
        np.array([time[r].mean() for r in rows]),
        np.stack([apart[r].sum(0) for r in rows]),
        np.stack([size[r].sum(0) for r in rows]),
        np.array([room[r].sum() for r in rows]),
    )


def _ratio(pairs: _Pairs, blocks: npt.NDArray[np.bool_]) -> Floats:
    return np.asarray(
        pairs.apart[:, blocks].sum(1) / np.maximum(pairs.size[:, blocks].sum(1), 1e-300)
    )


def _best(pairs: _Pairs, ratio: Floats) -> Floats:
    """Noise and rate 1 / tau, Hz, that fit best; the rate may be below zero by chance."""
    slow = np.array([ratio[0], 0.1 / pairs.time.max()])
    fast = np.array([0.0, 0.5 / pairs.time.min()])
    # Where all frames differ fully, all noise and all motion are two valleys.
    found = [_fitted(pairs, ratio, start, ROUNDS) for start in (slow, fast)]
    return found[0][1] if found[0][0] <= found[1][0] else found[1][1]


def _fitted(pairs: _Pairs, ratio: Floats, start: Floats, rounds: int) -> tuple[float, Floats]:
    """Cost, and noise and rate, of the law from a start, by rounds of reweighting."""
    time, span = pairs.time, float(pairs.time.max())
    # Unbounded at zero, or the jackknife would not see the scatter there.
    rate = Parameter(name=RATE.name, unit="Hz", low=-0.5 / span, high=RATE.high)
    least = 0.1 * float(np.median(np.abs(ratio))) + 1e-9
    scale = [max(abs(float(ratio[0])), 1e-6), max(1 / span, float(start[1]))]
    ones = np.ones(len(time))
    spread = np.maximum(_off(time, 0 * ratio, ones, start), least)
    for _ in range(rounds):
        sigma = spread / np.sqrt(pairs.weight)
        found = curve([NOISE, rate], partial(_off, time, ratio, sigma), start, scale=scale)
        start = found.values
        spread = np.maximum(_off(time, 0 * ratio, ones, start), least)
    cost = (_off(time, ratio, spread / np.sqrt(pairs.weight), start) ** 2).sum()
    return float(cost + 2 * np.log(spread).sum()), start


def _off(time: Floats, ratio: Floats, sigma: Floats, p: Floats) -> Floats:
    return np.asarray((p[0] - np.expm1(-2 * p[1] * time) - ratio) / sigma)
