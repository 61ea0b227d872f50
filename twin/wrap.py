"""Backends around backends: Recorded, Replayed and Faulty.

Each is a full backend. To change a backend, wrap it; none is inherited from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    DataError,
    PibTwinError,
    ReplayError,
)
from twin.faulty import Faulty
from twin.key import Key
from twin.plain import differs, owned
from twin.recording import Call, Recording

__all__ = ["Faulty", "Recorded", "Replayed"]

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
