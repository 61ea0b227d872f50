"""What a manufacturer would ship: 64 lamps behind a diffuser, 128 photodiodes, 12 bits.

Made up, so that the example runs without hardware; its noise has no seed, as in life.
"""

from __future__ import annotations

import numpy as np


class Bench:
    """serial: of the instrument; another diffuser stands in each."""

    def __init__(self, serial: int) -> None:
        self._paths = np.random.default_rng(serial).exponential(size=(64, 128)) / 64
        self._noise = np.random.default_rng()
        self._levels = np.zeros(64)
        self.laser_on = True

    def show(self, levels: np.ndarray) -> None:
        """Brightness of the lamps, 64 unsigned bytes."""
        self._levels = np.asarray(levels, np.uint8) / 255

    def grab(self) -> np.ndarray:
        """One frame, 128 numbers from 0 to 4095."""
        light = self._levels @ self._paths + 0.005 * self._noise.standard_normal(128)
        return np.clip(np.rint(4095 * light), 0, 4095).astype(np.uint16)

    def laser_off(self) -> None:
        """The safe state."""
        self.laser_on = False
