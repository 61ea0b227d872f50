"""Mean and temporal variance of every pixel at every exposure, and which to trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from substrates.optics.frameset import FrameSet, Level

Floats = NDArray[np.float64]
HIGHEST_SHARE = 0.9
"""Of the code range (EMVA fits up to 0.7 of saturation where saturation is seen)."""

HIGHEST_SHARE_OF_WELL = 0.7
MARGIN_SIGMAS = 5.0
HOT_SIGMAS = 10.0
LEAST_LEFT = 0.3
"""Share of the pixels that an exposure must have below saturation to be used."""


@dataclass(frozen=True)
class Moments:
    """Of the good pixels, levels first.

    time (levels,) s; lit, used (levels,); frames (levels,): how many. mean,
    variance (levels, good pixels): DN, DN^2; mask the same shape: not near
    saturation. good_pixels: their numbers among `pixels`. counts: pixels left
    out by reason. contrast: spatial, of the light. zeros: share of dark codes
    at 0. saturation_dn: code at which the variance collapses, if seen.
    surface: terms of the shading of a 2-D frame, (good pixels, 6). hot_pixels,
    dead_pixels: their numbers; hot_growth: dark signal of the hot ones, DN/s.
    """

    time: Floats
    lit: NDArray[np.bool_]
    used: NDArray[np.bool_]
    frames: NDArray[np.int64]
    mean: Floats
    variance: Floats
    mask: NDArray[np.bool_]
    good_pixels: NDArray[np.int64]
    pixels: int
    counts: Mapping[str, int]
    contrast: float
    zeros: float
    saturation_dn: float | None
    surface: Floats | None
    hot_pixels: NDArray[np.int64]
    hot_growth: Floats
    dead_pixels: NDArray[np.int64]

    @property
    def pixels_used(self) -> NDArray[np.int64]:
        """How many pixels each level has below saturation, at least 1."""
        return np.maximum(self.mask.sum(1), 1)

    @property
    def level_mean(self) -> Floats:
        return (self.mean * self.mask).sum(1) / self.pixels_used

    @property
    def level_variance(self) -> Floats:
        return np.maximum((self.variance * self.mask).sum(1) / self.pixels_used, 1e-12)


def measured(found: FrameSet) -> Moments:
    """The moments of `found`, with hot, dead, stuck and saturated pixels set apart."""
    lit = np.array([level.lit for level in found.levels])
    time = np.array([level.exposure_s for level in found.levels])
    mean = np.stack([level.codes.mean(0) for level in found.levels])
    stuck = _stuck(found)
    hot = _hot(mean, lit, time, stuck)
    ordinary = ~(stuck | hot)
    light = _light(mean, lit, ordinary)
    contrast = _contrast(light, ordinary)
    dead = ordinary & (light < 0.5 * np.median(light[ordinary])) & (contrast <= 1 / 3)
    good = np.flatnonzero(ordinary & ~dead)
    if len(good):
        contrast = _contrast(light, ordinary & ~dead)
    variance = np.stack([_variance(level, good) for level in found.levels])
    saturation = _saturation(mean[:, good], variance, lit)
    mask = _mask(found, mean[:, good], variance, saturation)
    counts = {"stuck": stuck, "hot": hot, "dead": dead}
    dark = [level.codes[:, good] for level in found.levels if not level.lit]
    zeros = sum(int((codes == 0).sum()) for codes in dark) / max(sum(c.size for c in dark), 1)
    return Moments(
        time=time, lit=lit, used=~lit | (mask.mean(1) >= LEAST_LEFT) if len(good) else lit,
        frames=np.array([len(level.codes) for level in found.levels]),
        mean=mean[:, good], variance=variance, mask=mask, good_pixels=good, pixels=mean.shape[1],
        counts={name: int(which.sum()) for name, which in counts.items()},
        contrast=contrast, zeros=zeros, saturation_dn=saturation,
        surface=_surface(found.shape, good),
        hot_pixels=np.flatnonzero(hot), hot_growth=_growth(mean, lit, time)[hot],
        dead_pixels=np.flatnonzero(dead),
    )  # fmt: skip


def _stuck(found: FrameSet) -> NDArray[np.bool_]:
    """Pixels with one code in all frames of all levels."""
    low = np.min([level.codes.min(0) for level in found.levels], axis=0)
    high = np.max([level.codes.max(0) for level in found.levels], axis=0)
    return np.asarray(low == high)


def _hot(
    mean: Floats, lit: NDArray[np.bool_], time: Floats, stuck: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pixels whose dark signal stands out of all others', by level or by growth."""
    order = np.flatnonzero(~lit)
    order = order[np.argsort(time[order])]
    if not len(order) or stuck.all():
        return np.zeros_like(stuck)
    last, growth = mean[order[-1]], mean[order[-1]] - mean[order[0]]
    return ~stuck & (_outlying(last, ~stuck) | _outlying(growth, ~stuck))


def _growth(mean: Floats, lit: NDArray[np.bool_], time: Floats) -> Floats:
    """Dark signal gained per second between the shortest and the longest exposure, DN/s."""
    first, last = (
        (~lit & (time == end)).nonzero()[0] for end in (time[~lit].min(), time[~lit].max())
    )
    seconds = max(float(time[last[0]] - time[first[0]]), 1e-12)
    return np.asarray((mean[last].mean(0) - mean[first].mean(0)) / seconds)


def _outlying(values: Floats, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    centre = np.median(values[among])
    # Quantised means may have no spread at all: half a code is always ordinary.
    scale = max(1.4826 * float(np.median(np.abs(values[among] - centre))), 0.05)
    return np.asarray(values - centre > HOT_SIGMAS * scale)


def _light(mean: Floats, lit: NDArray[np.bool_], ordinary: NDArray[np.bool_]) -> Floats:
    """Mean signal of the light in each pixel at the dimmer half of the exposures, DN."""
    bright = np.flatnonzero(lit)
    if not len(bright) or not ordinary.any():
        return np.ones(mean.shape[1])
    order = bright[np.argsort(mean[bright][:, ordinary].mean(1))]
    dim = order[: max(1, (len(order) + 1) // 2)]
    return np.asarray(mean[dim].mean(0) - mean[~lit].mean(0))


def _contrast(light: Floats, among: NDArray[np.bool_]) -> float:
    if not among.any():
        return 0.0
    return float(light[among].std() / max(light[among].mean(), 1e-12))


def _variance(level: Level, good: NDArray[np.int64]) -> Floats:
    """Temporal variance of each good pixel, without what all pixels did together."""
    codes = level.codes[:, good].astype(np.float64)
    if codes.size:
        codes -= codes.mean(1, keepdims=True)
    return np.asarray(codes.var(0, ddof=1))


def _saturation(mean: Floats, variance: Floats, lit: NDArray[np.bool_]) -> float | None:
    """Mean of the brightest level if the variance has collapsed there, else None."""
    bright = np.flatnonzero(lit)
    if len(bright) < 2 or not mean.shape[1]:
        return None
    order = bright[np.argsort(mean[bright].mean(1))]
    pooled = variance[order].mean(1)
    peak = int(pooled.argmax())
    collapsed = peak < len(order) - 1 and pooled[-1] < 0.5 * pooled[peak]
    return float(np.median(mean[order[-1]])) if collapsed else None


def _mask(
    found: FrameSet, mean: Floats, variance: Floats, saturation: float | None
) -> NDArray[np.bool_]:
    """Pixels well below saturation, chosen by their mean over the frames."""
    black = mean[[not level.lit for level in found.levels]].mean() if mean.size else 0.0
    limit = black + HIGHEST_SHARE * (found.top - black)
    if saturation is not None:
        limit = min(limit, black + HIGHEST_SHARE_OF_WELL * (saturation - black))
    # The noise of a pixel near the top is cut off, and with it its variance.
    noise = MARGIN_SIGMAS * np.sqrt(variance.mean(1, keepdims=True)) if mean.size else 0.0
    dark = np.array([not level.lit for level in found.levels])[:, None]
    return np.asarray(dark | (mean <= np.minimum(limit, found.top - noise)))


def _surface(shape: tuple[int, ...], good: NDArray[np.int64]) -> Floats | None:
    """1, x, y, x^2, xy, y^2 at the good pixels of a frame with rows and columns."""
    if len(shape) != 2 or min(shape) < 8:
        return None
    y, x = (
        v.ravel()[good] for v in np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    )
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
