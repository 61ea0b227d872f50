"""The clocks of one chip: device time, the age of its cells, reads since a write."""

from __future__ import annotations

import math
from collections.abc import Mapping

from scipy import constants

from substrates.memristor import device
from substrates.memristor.cells import Moment
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.technology import Technology
from twin.errors import DialError

REFERENCE_K = 300.0
"""Temperature of the plain laws, kelvin."""


class Clock:
    """Seconds since the chip was made, and since its last write as the cells feel
    them: a hot cell ages faster by its Arrhenius factor."""

    def __init__(self, technology: Technology | None, activation_ev: float) -> None:
        self._activation_ev = activation_ev
        self._law = law = None if technology is None else technology.relaxation
        # Where a plain law comes on top, it starts at T0_S whatever the technology.
        self._first_s = device.T0_S if law is None else min(device.T0_S, law.first_s)
        self._disturbed = technology is not None and technology.disturb is not None
        self._speed = 1.0
        self.now_s = self.age_s = self._aged_s = 0.0
        self._reads = 0

    @staticmethod
    def of(config: CrossbarConfig, technology: Technology | None) -> Clock:
        """The clock of a new chip."""
        return Clock(technology, config.activation_ev)

    def set_temperature(self, kelvin: float) -> None:
        """From now on cells age at this temperature; DialError where no law is known."""
        if self._law is not None:
            self._speed = self._law.acceleration(kelvin)
        else:
            per_kelvin = self._activation_ev * constants.e / constants.k
            self._speed = math.exp(per_kelvin * (1 / REFERENCE_K - 1 / kelvin))

    def wrote(self, seconds: float) -> None:
        """A write that took this long has just ended: all cells are new."""
        self.now_s += seconds
        self.age_s = self._aged_s = 0.0
        self._reads = 0

    def read(self, passes: int, seconds: float) -> None:
        """So many passes have been made."""
        self._pass_time(seconds)
        self._reads += passes

    def wait(self, seconds: float, where: str) -> None:
        """Time passes; DialError for a negative or endless wait, or one that leads
        beyond the data of the technology."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DialError(f"{where}: a wait must be finite and >= 0 s, got {seconds}.")
        if self._law is not None:
            self._law.effective_s(self._aged_s + seconds * self._speed)  # refuses beyond its data
        self._pass_time(seconds)

    def moment(self) -> Moment:
        """Now, with ages and reads on a fine logarithmic grid, so that not every
        pass needs a new matrix."""
        reads = 0
        if self._disturbed and self._reads:
            reads = round(math.exp(math.floor(math.log(self._reads) * 1000) / 1000))
        return Moment(device.age_on_grid(self._aged_s, self._first_s), reads, self.now_s)

    def state(self) -> dict[str, float]:
        """As plain numbers, for a snapshot."""
        return {
            "clock_s": self.now_s,
            "age_s": self.age_s,
            "aged_s": self._aged_s,
            "reads_since_write": self._reads,
        }

    def restore(self, values: Mapping[str, float | int | str | bool]) -> None:
        """Back to what `state` gave."""
        self.now_s, self.age_s = float(values["clock_s"]), float(values["age_s"])
        self._aged_s, self._reads = float(values["aged_s"]), int(values["reads_since_write"])

    def _pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.age_s += seconds
        self._aged_s += seconds * self._speed
