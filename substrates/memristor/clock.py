"""The clocks of one chip: device time, the age of its cells, reads since a write."""

from __future__ import annotations

import math
from collections.abc import Mapping

from scipy import constants

from substrates.memristor import device
from substrates.memristor.ages import Elapsed, Limits, Moment
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
        self._name = "" if technology is None else technology.name
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
        """A write that took this long has just ended."""
        self.now_s += seconds
        self.age_s = self._aged_s = 0.0
        self._reads = 0

    def elapsed(self, seconds: float) -> Elapsed:
        """From the last write to `seconds` from now."""
        law_s = self._aged_s + seconds * self._speed
        return Elapsed(law_s, self.age_s + seconds, self._reads)

    def read(self, passes: int, seconds: float) -> None:
        """So many passes have been made."""
        self._pass_time(seconds)
        self._reads += passes

    def wait(self, seconds: object, limits: Limits, where: str) -> None:
        """Time passes; DialError for what is no time, or leads beyond what is known."""
        try:
            span = float(seconds)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise DialError(
                f"{where}: a wait takes a number of seconds, got {seconds!r}."
            ) from None
        if not (math.isfinite(span) and span >= 0):
            raise DialError(f"{where}: a wait must be finite and >= 0 s, got {span}.")
        self.require(span, limits, where)
        self._pass_time(span)

    def require(self, seconds: float, limits: Limits, where: str) -> None:
        """DialError where so many seconds more would lead beyond the data of the
        technology for any cell, or beyond what is known of its traps."""
        self.require_traps(seconds, limits, where)
        aged_s = limits.oldest_s + self._aged_s + seconds * self._speed
        if not math.isfinite(aged_s):
            raise DialError(
                f"{where}: {seconds:g} s at this temperature is more than a number can count; "
                "wait less."
            )
        if self._law is not None and self._law.ends_before(aged_s):
            raise DialError(
                f"{where}: relaxation of {self._name!r} holds up to {self._law.last_s:g} s after "
                f"the write at {self._law.temperature_k:g} K, {seconds:g} s more would be "
                f"{aged_s:g} s. Wait less, write again before, or extend the technology's last_s "
                "with data."
            )

    def require_traps(self, seconds: float, limits: Limits, where: str) -> None:
        """DialError where device time would go beyond what is known of the traps."""
        until_s = self.now_s + seconds
        if not until_s <= limits.horizon_s or not math.isfinite(until_s):
            raise DialError(
                f"{where}: device time would be {until_s:g} s, but telegraph noise can be told "
                f"up to {limits.horizon_s:.3g} s. Wait less, or use slower traps (fastest_s)."
            )

    def remaining_s(self, limits: Limits) -> float:
        """Seconds that `require` would not refuse, but for rounding."""
        left_s = limits.horizon_s - self.now_s
        if self._law is not None:
            aged_s = limits.oldest_s + self._aged_s
            left_s = min(left_s, (self._law.last_s - aged_s) / self._speed)
        return max(0.0, left_s)

    def moment(self, mixed: bool = False) -> Moment:
        """Now, with ages and reads on a fine logarithmic grid, so that not every
        pass needs a new matrix. mixed: some cells are older than the last write."""
        reads = 0
        if self._disturbed and self._reads:
            reads = round(math.exp(math.floor(math.log(self._reads) * 1000) / 1000))
        # What comes on top of the age of an old cell must start as fine as its steps.
        first_s = self._first_s * (device.LOG_STEP if mixed else 1.0)
        age_s = device.age_on_grid(self.age_s, first_s)
        aged_s = age_s if self._aged_s == self.age_s else device.age_on_grid(self._aged_s, first_s)
        return Moment(aged_s, age_s, reads, self.now_s)

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
