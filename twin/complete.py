"""The small wrapper that turns a four-method driver into a full backend.

A driver author writes capabilities, program, forward and close. What is left
is either harmless by default (nothing to range, no dials) or refused loudly.
"""

from __future__ import annotations

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
from twin.errors import DialError, Unsupported
from twin.key import Key

OPTIONAL = ("set_range", "adjust", "wait", "snapshot", "restore")


class Completed:
    """A minimal driver with defaults for everything it left out."""

    def __init__(self, driver: MinimalBackend) -> None:
        self._driver = driver
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    def program(self, setting: Values, *, key: Key) -> Written:
        return self._driver.program(setting, key=key)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        return self._driver.forward(drive, key=key, first_sample=first_sample, shots=shots)

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        return self._own("set_range", "has no adjustable range")(drive, key=key)

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        self.capabilities.dial(dial)
        refuse = "declares the dial but cannot turn it"
        return self._own("adjust", refuse, DialError)(dial, value, key=key)

    def wait(self, seconds: float) -> None:
        if hasattr(self._driver, "wait"):
            self._driver.wait(seconds)
        elif self.capabilities.clock == "wall":
            time.sleep(seconds)
        else:
            self._own("wait", "has a virtual clock but no wait()")

    def snapshot(self) -> Snapshot:
        return self._own("snapshot", "cannot save its state (restorable is False)")()

    def restore(self, snapshot: Snapshot) -> None:
        refuse = "cannot restore a snapshot (restorable is False); use Replayed to repeat a run"
        self._own("restore", refuse)(snapshot)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._driver.close()

    def _own(self, name: str, refusal: str, error: type[Exception] = Unsupported) -> Any:
        method = getattr(self._driver, name, None)
        if method is None:
            raise error(f"{self.capabilities.device_id} {refusal}.")
        return method


def complete(driver: MinimalBackend) -> Backend:
    """`driver` itself if it has every member of the contract, else wrapped."""
    if all(hasattr(driver, name) for name in OPTIONAL):
        return driver  # type: ignore[return-value]
    return Completed(driver)
