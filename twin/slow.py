"""A backend whose every call takes longer, in wall time: for deadlines and progress."""

from __future__ import annotations

import math
import time
from typing import Any

from twin.backend import (
    Backend,
    Capabilities,
    MinimalBackend,
    Ranged,
    Reading,
    Snapshot,
    Values,
    Written,
)
from twin.complete import complete
from twin.errors import ConfigError
from twin.key import Key


class Slow:
    """Sleeps `delay_s` wall seconds before each call that reaches the device.

    What the device says of its own time is left alone. Raises ConfigError for a delay
    that is negative or not finite.
    """

    def __init__(self, backend: MinimalBackend, *, delay_s: float) -> None:
        if not (isinstance(delay_s, int | float) and math.isfinite(delay_s) and delay_s >= 0):
            raise ConfigError(f"slow: delay_s must be seconds >= 0, got {delay_s!r}.")
        self._backend: Backend = complete(backend)
        self._delay_s = delay_s

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    def program(self, setting: Values, *, key: Key) -> Written:
        time.sleep(self._delay_s)
        return self._backend.program(setting, key=key)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        time.sleep(self._delay_s)
        return self._backend.forward(drive, key=key, first_sample=first_sample, shots=shots)

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        time.sleep(self._delay_s)
        return self._backend.set_range(drive, key=key)

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        time.sleep(self._delay_s)
        return self._backend.adjust(dial, value, key=key)

    def wait(self, seconds: float) -> None:
        self._backend.wait(seconds)

    def snapshot(self) -> Snapshot:
        return self._backend.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        self._backend.restore(snapshot)

    def close(self) -> None:
        self._backend.close()
