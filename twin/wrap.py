"""Backends around backends: Recorded, Replayed and Faulty.

Each is a full backend. To change a backend, wrap it; none is inherited from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch

from twin import errors
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
from twin.errors import (
    ConfigError,
    DataError,
    DeviceUnavailable,
    OutcomeUnknown,
    PibTwinError,
    ReplayError,
    UnknownName,
    nearest,
)
from twin.key import Key
from twin.plain import differs, owned
from twin.recording import Call, Recording

Answer = TypeVar("Answer")


class Recorded:
    """A backend whose every call, with its answer or typed error, is kept.

    close is not recorded. Errors that are not from `twin.errors` are not
    either: they are defects of a driver, not behaviour of a device.
    """

    def __init__(self, backend: MinimalBackend) -> None:
        self._backend: Backend = complete(backend)
        self._calls: list[Call] = []

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    @property
    def recording(self) -> Recording:
        """Everything recorded so far."""
        return Recording(self.capabilities, tuple(self._calls))

    def program(self, setting: Values, *, key: Key) -> Written:
        act = self._backend.program
        return self._kept("program", key, lambda: act(setting, key=key), setting=setting)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        act = self._backend.forward
        options = {"first_sample": first_sample, "shots": shots}
        return self._kept(
            "forward",
            key,
            lambda: act(drive, key=key, first_sample=first_sample, shots=shots),
            drive=drive,
            **options,
        )

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        act = self._backend.set_range
        return self._kept("set_range", key, lambda: act(drive, key=key), drive=drive)

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        act = self._backend.adjust
        return self._kept("adjust", key, lambda: act(dial, value, key=key), dial=dial, value=value)

    def wait(self, seconds: float) -> None:
        self._kept("wait", None, lambda: self._backend.wait(seconds), seconds=float(seconds))

    def snapshot(self) -> Snapshot:
        return self._kept("snapshot", None, self._backend.snapshot)

    def restore(self, snapshot: Snapshot) -> None:
        self._kept("restore", None, lambda: self._backend.restore(snapshot), snapshot=snapshot)

    def close(self) -> None:
        self._backend.close()

    def _kept(self, kind: str, key: Key | None, act: Callable[[], Answer], **inputs: Any) -> Answer:
        # Copied before the call: a faulty driver may change its input.
        before = owned(inputs)
        try:
            answer = act()
        except PibTwinError as error:
            if hasattr(errors, type(error).__name__):
                what = (type(error).__name__, str(error))
                self._calls.append(Call(kind, before, key, error=what))
            raise
        self._calls.append(Call(kind, before, key, answer=owned(answer)))
        return answer


class Replayed:
    """A recording that answers as the device did, call by call, in order.

    It has the capabilities and the device_id of what it replays. A call that
    differs in kind, key or any input raises ReplayError and is not consumed.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._next = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._recording.capabilities

    @property
    def remaining(self) -> int:
        """How many recorded calls have not been asked for yet."""
        return len(self._recording.calls) - self._next

    def program(self, setting: Values, *, key: Key) -> Written:
        return self._answer("program", key, setting=setting)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        return self._answer("forward", key, drive=drive, first_sample=first_sample, shots=shots)

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        return self._answer("set_range", key, drive=drive)

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        return self._answer("adjust", key, dial=dial, value=value)

    def wait(self, seconds: float) -> None:
        self._answer("wait", None, seconds=float(seconds))

    def snapshot(self) -> Snapshot:
        return self._answer("snapshot", None)

    def restore(self, snapshot: Snapshot) -> None:
        self._answer("restore", None, snapshot=snapshot)

    def close(self) -> None:
        """Nothing to make safe."""

    def _answer(self, kind: str, key: Key | None, **inputs: Any) -> Any:
        where = f"replay of {self.capabilities.device_id!r}, call {self._next + 1}"
        if self.remaining == 0:
            raise ReplayError(
                f"{where}: {kind} was asked, but only {self._next} calls were recorded. "
                "Record a longer run."
            )
        call = self._recording.calls[self._next]
        wrong = _mismatch(call, kind, key, owned(inputs))
        if wrong:
            raise ReplayError(f"{where}: {wrong}. Repeat the recorded run exactly.")
        self._next += 1
        if call.error is not None:
            raise _typed(*call.error)
        return owned(call.answer)


def _typed(name: str, message: str) -> PibTwinError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, PibTwinError)):
        raise DataError(f"the recording holds an unknown error {name!r}. Record it again.")
    return kind(message)


def _mismatch(call: Call, kind: str, key: Key | None, inputs: Mapping[str, Any]) -> str:
    """What differs between a recorded call and the one asked for; "" if nothing."""
    if kind != call.kind:
        return f"expected {call.kind}, got {kind}"
    if key != call.key:
        return f"{kind} has another key (recorded {call.key}, got {key})"
    for name, expected in call.inputs.items():
        got = inputs.get(name)
        if differs(expected, got):
            return f"{kind} has another {name} (recorded {_told(expected)}, got {_told(got)})"
    return ""


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} with sum {float(value.double().sum()):.9g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_told(item)}" for name, item in value.items())
    return f"of {value.device_id!r}" if isinstance(value, Snapshot) else repr(value)


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
    codes.view(-1)[0] = bad
    return replace(reading, codes=codes)
