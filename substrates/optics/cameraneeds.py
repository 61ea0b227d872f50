"""What frames must bring so that a camera can be fitted to them; else a DataError."""

from __future__ import annotations

from collections.abc import Mapping

from substrates.optics.frameset import FrameSet, split
from substrates.optics.levelstats import Moments
from twin.errors import DataError

LEAST_DARK_VARIANCE = 0.24
"""DN^2 below which the dark noise is hidden by the rounding (EMVA 1288 reference code)."""

FEWEST_PIXELS = 400
FEWEST_DARK, FEWEST_BRIGHT = 2, 3


def require_levels(found: FrameSet) -> None:
    """DataError if there are too few exposures."""
    kinds = split(found)
    times = {found.levels[j].exposure_s for j in kinds[False]}
    if len(times) < FEWEST_DARK:
        raise DataError(
            f"camera frames: dark frames at {len(times)} exposure(s), need {FEWEST_DARK} or more: "
            "the dark current is their slope. Close the shutter and repeat the exposures."
        )
    if len(kinds[True]) < FEWEST_BRIGHT:
        raise DataError(
            f"camera frames: bright frames at {len(kinds[True])} exposure(s), need "
            f"{FEWEST_BRIGHT} or more below saturation. Take more exposures."
        )


def require_usable(found: FrameSet, m: Moments) -> None:
    """DataError if too little of the frames is left, or the codes hide the noise."""
    if len(m.good_pixels) < FEWEST_PIXELS:
        raise DataError(
            f"camera frames: {len(m.good_pixels)} pixels that are not stuck, hot or dead, need "
            f"{FEWEST_PIXELS} or more. Use a larger region."
        )
    bright = m.lit & m.used
    if bright.sum() < FEWEST_BRIGHT:
        dropped = [str(level) for level, u in zip(found.levels, m.used, strict=True) if not u]
        raise DataError(
            f"camera frames: {int(bright.sum())} bright exposures below saturation (left out: "
            f"{', '.join(dropped)}), need {FEWEST_BRIGHT} or more. Take shorter exposures."
        )
    if m.zeros > 1e-3:
        raise DataError(
            f"camera frames: {m.zeros:.1%} of the dark codes are 0 (limit 0.1 %), so the dark "
            "noise is cut off. Raise the camera's black level."
        )
    lowest = float(m.level_variance[~m.lit].min())
    if lowest < LEAST_DARK_VARIANCE:
        raise DataError(
            f"camera frames: dark variance {lowest:.3g} DN^2, below {LEAST_DARK_VARIANCE} the "
            "rounding hides the noise. Raise the camera's gain, or use more bits."
        )


def require_positive(found: Mapping[str, float], frames: FrameSet) -> None:
    """DataError if gain or noise came out negative."""
    if not found["gain"] > 0:
        raise DataError(
            f"camera frames: the variance does not grow with the mean (slope {found['gain']:.3g} "
            f"DN/electron over {len(frames.levels)} levels). Are these raw frames, and the dark "
            "ones dark?"
        )
    if not found["read_noise"] > 0:
        raise DataError(
            "camera frames: no dark noise above the rounding of 1/12 DN^2. Raise the gain, or "
            "take more dark frames."
        )
