"""PIB minus each rival, seed by seed: both had the same device, images and ceiling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import t as student

from validation.studies.collect import TRAINED_BY
from validation.studies.compare.plan import Comparison

CONFIDENCE = 0.95
FIRST = "pib"
"""Whom all others are compared with."""


@dataclass(frozen=True)
class Paired:
    """PIB minus a rival, seed by seed. low, high: Student's interval; NaN for one seed."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def word(self) -> str:
        """Who is ahead, if the interval says so."""
        if not math.isfinite(self.low):
            return "?"
        return "ahead" if self.low > 0 else "behind" if self.high < 0 else "tie"


def paired(values: np.ndarray, others: np.ndarray) -> Paired:
    """Of two rows by seed; seeds that lack one are left out."""
    both = np.isfinite(values) & np.isfinite(others)
    differences = values[both] - others[both]
    count = len(differences)
    mean = float(differences.mean()) if count else math.nan
    if count < 2:
        return Paired(mean, math.nan, math.nan, count)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    reach = error * float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Paired(mean, mean - reach, mean + reach, count)


def differences(
    asked: Comparison, found: xr.Dataset, figure: str | None = None
) -> Iterator[tuple[str, int, str, Paired]]:
    """(arm, level, rival, difference) wherever both have results. figure: None for the main one."""
    figure = figure or asked.figure
    if figure not in found:
        return
    table = found[figure]
    for arm in asked.arms:
        for level in range(len(arm.levels)):
            here = table.sel(arm=arm.name).isel(level=level)
            if FIRST not in here[TRAINED_BY].values:
                continue
            own = here.sel({TRAINED_BY: FIRST}).values
            for rival in here[TRAINED_BY].values:
                one = paired(own, here.sel({TRAINED_BY: rival}).values)
                if rival != FIRST and one.pairs:
                    yield arm.name, level, str(rival), one
