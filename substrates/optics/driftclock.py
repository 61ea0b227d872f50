"""How a rig changes in time, as data, and the clock of its medium.

Times in s of the device. The clock counts correlation times: a warm-up is a
slowing clock, a jump a leap of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from substrates.optics.ornstein import EPOCH
from twin.config import STRICT
from twin.key import Key

WINDOW = 64
"""Mean number of random jumps drawn together."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DriftTable:
    """How a rig changes in time. The defaults: it does not."""

    tau_s: Positive | None = None
    """Correlation time of the field, s: <T(t) T*(s)> = exp(-|t - s| / tau). The
    speckle (intensity) correlates as the square, with tau / 2. None: never moves."""

    warmup_tau_s: Positive | None = None
    """Correlation time of the field at switch-on, device time 0, s; at most
    tau_s. None: no warm-up."""

    warmup_s: Positive = 3600.0
    """Time constant with which the rate 1 / tau falls from its value at switch-on
    to 1 / tau_s. (A digital mirror device decorrelated for about an hour after a
    sequence started and was stable after 4.2 h: arXiv 2311.17496.)"""

    jump_rate_hz: NotNegative = 0.0
    """Jumps per second at random (Poisson) times, as of a knocked table."""

    jump_times_s: tuple[NotNegative, ...] = ()
    """Device times of further jumps, s."""

    jump_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of the transmitted power that a jump replaces: fields before and
    after correlate as sqrt(1 - fraction), the speckle as 1 - fraction."""

    power_rms: Annotated[float, Field(ge=0, le=1)] = 0.0
    """R.m.s. of the laser's power over its mean (0.005 to 0.02, assumed)."""

    power_tau_s: Positive = 600.0
    """Correlation time of the logarithm of the power, s (assumed). Over times far
    below it the power walks at random."""

    pointing_rms_pixels: Annotated[float, Field(ge=0, le=100)] = 0.0
    """R.m.s. shift of the image on the camera, pixels, along each axis."""

    pointing_tau_s: Positive = 600.0
    """Correlation time of that shift, s (assumed)."""

    steps_per_tau: Annotated[int, Field(ge=16, le=1024)] = 256
    """Grid of the drawn path, points per tau (a power of two). The correlation of
    two fields is off by 0.75 / steps_per_tau at most (0.003). Frames cost a draw of
    the matrix per grid point that they pass."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.warmup_tau_s is not None and self.warmup_tau_s > (self.tau_s or math.inf):
            raise ValueError(
                f"warmup_tau_s = {self.warmup_tau_s:g} s exceeds tau_s = {self.tau_s:g} s: a rig "
                "settles while it warms up. Swap them, or leave warmup_tau_s out"
            )
        if self.steps_per_tau & (self.steps_per_tau - 1):
            raise ValueError(f"steps_per_tau must be a power of two, got {self.steps_per_tau}")
        return self

    @property
    def jumps(self) -> bool:
        """There are jumps."""
        return self.jump_fraction > 0 and (self.jump_rate_hz > 0 or bool(self.jump_times_s))

    @property
    def moves(self) -> bool:
        """The matrix changes."""
        return self.tau_s is not None or self.warmup_tau_s is not None or self.jumps

    @property
    def static(self) -> bool:
        """Nothing changes."""
        return not self.moves and self.power_rms == 0 and self.pointing_rms_pixels == 0


PRESETS: Mapping[str, DriftTable] = MappingProxyType(
    {
        "static": DriftTable(),
        # Both correlation times are assumed; an hour: see warmup_s.
        "warm-up": DriftTable(tau_s=360_000.0, warmup_tau_s=3600.0, warmup_s=3600.0),
        # Speckle correlation time 10 min: paint on a table (assumed).
        "slow": DriftTable(tau_s=1200.0),
        # Speckle correlation time 1 s, inside the 50 ms to 2.5 s seen through
        # living mouse skin (Jang et al. 2015, Biomed. Opt. Express 6, 72).
        "tissue-like": DriftTable(tau_s=2.0),
    }
)
"""Named drifts."""


class DriftClock:
    """How far the medium has moved, in correlation times, as device time passes.

    A warm-up is a slowing clock and a jump a leap of it: by
    -ln(1 - fraction) / 2, which is what leaves the correlation sqrt(1 - fraction).
    """

    def __init__(self, table: DriftTable, key: Key) -> None:
        self._table = table
        self._key = key
        lost = 1 - table.jump_fraction
        self._leap = min(-math.log(lost) / 2, float(EPOCH)) if lost > 0 else float(EPOCH)
        self._stated = np.sort(np.asarray(table.jump_times_s, np.float64))
        self._counts: dict[int, tuple[int, int]] = {}

    def elapsed(self, times_s: np.ndarray) -> np.ndarray:
        """Correlation times since device time 0, at `times_s`; never falls.

        The field correlation of two times is exp(-difference).
        """
        table, t = self._table, np.asarray(times_s, np.float64)
        floor = 0.0 if table.tau_s is None else 1 / table.tau_s
        extra = 0.0 if table.warmup_tau_s is None else 1 / table.warmup_tau_s - floor
        smooth = floor * t - extra * table.warmup_s * np.expm1(-t / table.warmup_s)
        return smooth + self._leap * self.jumps_before(t) if table.jumps else smooth

    def jumps_before(self, times_s: np.ndarray) -> np.ndarray:
        """Jumps at or before each time."""
        count = np.searchsorted(self._stated, times_s, side="right")
        if self._table.jump_rate_hz == 0:
            return count
        length = WINDOW / self._table.jump_rate_hz
        windows = np.floor(times_s / length).astype(np.int64)
        for window in np.unique(windows):
            inside = windows == window
            own = np.searchsorted(self._jumps(int(window)), times_s[inside], side="right")
            count[inside] += self._counted(int(window))[0] + own
        return count

    def _counted(self, window: int) -> tuple[int, int]:
        """Jumps before a window and in it: a span of 1, 1, 2, 4 ... windows has a
        Poisson number, and is halved until the window is found. Time may leap far."""
        if window not in self._counts:
            spans = [self._drawn_in(n) for n in range(window.bit_length() + 1)]
            before, inside = sum(spans[:-1]), spans[-1]
            size = 1 << max(window.bit_length() - 1, 0)
            low = size if window else 0
            while size > 1:
                size //= 2
                first = int(self._key.child("half", low, size).numpy().binomial(inside, 0.5))
                if window >= low + size:
                    low, before, inside = low + size, before + first, inside - first
                else:
                    inside = first
            self._counts = {window: (before, inside)}
        return self._counts[window]

    def _drawn_in(self, span: int) -> int:
        windows = 1 << max(span - 1, 0)
        return int(self._key.child("span", span).numpy().poisson(WINDOW * windows))

    def _jumps(self, window: int) -> np.ndarray:
        """Times of the random jumps of a window, rising, s."""
        generator = self._key.child("jumps", window).numpy()
        count = self._counted(window)[1]
        length = WINDOW / self._table.jump_rate_hz
        return (window + np.sort(generator.random(count))) * length
