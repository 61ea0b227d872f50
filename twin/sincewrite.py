"""How long ago a device was written, from the calls of a recording."""

from __future__ import annotations

from twin.calls import Timing


class SinceWrite:
    """Device time of the last write, as told by the first reading behind it.

    What the device's clock showed at the write is not in a recording, and the device may
    have been at work before: only time behind the write is counted.
    """

    def __init__(self, clock: str) -> None:
        self._wall = clock == "wall"
        self._at_s: float | None = None
        self._passed_s = 0.0
        self._timing: Timing | None = None

    def wrote(self, timing: Timing | None) -> None:
        self._at_s, self._passed_s, self._timing = None, 0.0, timing

    def passed(self, seconds: float) -> None:
        self._passed_s += seconds

    def written_s(self, start_s: float, seconds: float, timing: Timing | None) -> float:
        """Clock at the write; the reading in hand began at start_s and took `seconds`."""
        if self._at_s is None:
            gap = self._passed_s
            if self._wall and timing is not None and self._timing is not None:
                between = timing.ended_monotonic_s - self._timing.ended_monotonic_s
                gap = max(gap, between - seconds)
            self._at_s = start_s - gap
        return self._at_s
