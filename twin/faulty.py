"""A backend that fails now and then, on purpose and by schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch

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
from twin.errors import ConfigError, DeviceUnavailable, OutcomeUnknown, UnknownName, nearest
from twin.key import Key

Answer = TypeVar("Answer")
READING_FAULTS = ("nan", "range", "shape", "dtype", "batch")
CALL_FAULTS = ("unavailable", "unknown")


class Faulty:
    """A backend that fails now and then, on a schedule drawn from `key`.

    at: fault by call number, counting program, forward and set_range from 1.
    rate: probability of a fault in each further call, drawn from `kinds`.
    "unavailable" raises before the device acts, "unknown" after; "nan" (end
    code + 1 on a coded port), "range", "shape", "dtype" and "batch" spoil a
    reading and leave calls without one alone.
    """

    def __init__(
        self,
        backend: MinimalBackend,
        key: Key,
        *,
        at: Mapping[int, str] | None = None,
        rate: float = 0.0,
        kinds: tuple[str, ...] = ("unavailable",),
    ) -> None:
        known = (*CALL_FAULTS, *READING_FAULTS)
        for kind in (*kinds, *(at or {}).values()):
            if kind not in known:
                raise UnknownName(f"faulty: no fault {kind!r}. {nearest(kind, known)}")
        if not 0 <= rate <= 1:
            raise ConfigError(f"faulty: rate must be a probability in [0, 1], got {rate}.")
        self._backend: Backend = complete(backend)
        self._key, self._at, self._rate, self._kinds = key, dict(at or {}), rate, kinds
        self.calls = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    def program(self, setting: Values, *, key: Key) -> Written:
        return self._struck(lambda: self._backend.program(setting, key=key))[0]

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        act = self._backend.forward
        reading, fault = self._struck(
            lambda: act(drive, key=key, first_sample=first_sample, shots=shots)
        )
        return _spoilt(reading, fault, self.capabilities) if fault else reading

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        return self._struck(lambda: self._backend.set_range(drive, key=key))[0]

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        return self._backend.adjust(dial, value, key=key)

    def wait(self, seconds: float) -> None:
        self._backend.wait(seconds)

    def snapshot(self) -> Snapshot:
        return self._backend.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        self._backend.restore(snapshot)

    def close(self) -> None:
        self._backend.close()

    def _struck(self, act: Callable[[], Answer]) -> tuple[Answer, str | None]:
        """The answer of `act` and the fault to spoil it with, if any."""
        self.calls += 1
        fault = self._fault()
        where = f"{self.capabilities.device_id}, call {self.calls}"
        if fault == "unavailable":
            raise DeviceUnavailable(f"{where}: planted fault, the device did not act. Try again.")
        answer = act()
        if fault == "unknown":
            raise OutcomeUnknown(
                f"{where}: planted fault, the answer was lost. Inspect the device."
            )
        return answer, fault

    def _fault(self) -> str | None:
        if self.calls in self._at:
            return self._at[self.calls]
        draw = self._key.child("fault", self.calls).numpy()
        if draw.random() >= self._rate:
            return None
        return self._kinds[int(draw.integers(len(self._kinds)))]


def _spoilt(reading: Reading, fault: str, capabilities: Capabilities) -> Reading:
    port = capabilities.readings[0]
    codes = torch.as_tensor(reading.codes).clone()
    if fault == "shape":
        return replace(reading, codes=codes[..., None])
    if fault == "batch":
        return replace(reading, codes=codes[..., :-1].contiguous() if codes.ndim < 2 else codes[1:])
    if fault == "dtype":
        return replace(reading, codes=codes.to(torch.float64))
    bad = float("nan") if fault == "nan" and not port.is_coded else port.code_high + 1
    if port.is_coded and bad > torch.iinfo(codes.dtype).max:
        codes = codes.to(torch.int64)  # no such code exists in the port's own dtype
    codes.view(-1)[0] = bad
    return replace(reading, codes=codes)
