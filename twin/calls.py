"""One call to a backend as data: what went in, what came out, when, at what cost."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from twin.backend import Ranged, Reading, Written
from twin.checks import batch_of
from twin.errors import DataError
from twin.key import Key
from twin.plain import pack, unpack

KINDS = ("program", "forward", "set_range", "adjust", "wait", "snapshot", "restore")


@dataclass(frozen=True)
class Timing:
    """When a call began and ended, seconds.

    *_monotonic_s: on a clock that is never set, with no meaning of its own but
    differences inside one process. *_unix_s: wall time since 1970 (UTC), as
    the computer believed it to be.
    """

    began_monotonic_s: float
    began_unix_s: float
    ended_monotonic_s: float
    ended_unix_s: float

    @property
    def duration_s(self) -> float:
        return self.ended_monotonic_s - self.began_monotonic_s


class Stopwatch:
    """Begins when made; `stopped` is the timing until now."""

    def __init__(self) -> None:
        self._began = (time.monotonic(), time.time())

    def stopped(self) -> Timing:
        return Timing(*self._began, time.monotonic(), time.time())


@dataclass(frozen=True)
class Call:
    """One call and what came of it.

    kind: the member that was called. inputs: its arguments by name. key: as
    given, None where the member takes none. answer: what was returned.
    error: (type, message) if a typed error was raised instead. timing: None in
    recordings of format 1. version_before, version_after: the state version as
    the last answer told it, None where it is not known.
    """

    kind: str
    inputs: Mapping[str, Any]
    key: Key | None = None
    answer: Any = None
    error: tuple[str, str] | None = None
    timing: Timing | None = None
    version_before: int | None = None
    version_after: int | None = None

    @property
    def id(self) -> str | None:
        """The call id that the fence gave, the same when a call was repeated."""
        return self.key.call_id if self.key else None

    @property
    def device_seconds(self) -> float:
        """What the call took of the device's time, seconds."""
        return float(getattr(self.answer, "device_seconds", 0.0))

    @property
    def joules(self) -> float:
        return float(getattr(self.answer, "joules", 0.0))

    @property
    def passes(self) -> int:
        """Samples x shots that went through the physics."""
        if isinstance(self.answer, Ranged):
            return int(self.answer.passes)
        if not isinstance(self.answer, Reading):
            return 0
        return batch_of(self.inputs["drive"]) * int(self.inputs.get("shots") or 1)


def version_after(kind: str, answer: Any, before: int | None) -> int | None:
    """The state version that an answer tells, or what is known without."""
    if isinstance(answer, Reading | Written | Ranged):
        return int(answer.state_version)
    if kind == "adjust" and isinstance(answer, int):
        return answer
    # A restored state has the version it had; the device does not say which.
    return None if kind == "restore" else before


def packed(call: Call, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """`call` as JSON data; its tensors are put into `tensors` by name."""
    return {
        "kind": call.kind,
        "inputs": pack(dict(call.inputs), tensors),
        "key": pack(call.key, tensors),
        "answer": pack(call.answer, tensors),
        "error": pack(call.error, tensors),
        "timing": asdict(call.timing) if call.timing else None,
        "version_before": call.version_before,
        "version_after": call.version_after,
    }


def parsed(data: Any, tensors: Mapping[str, Tensor]) -> Call:
    """The call that :func:`packed` made `data` from; DataError if it cannot be."""
    try:
        names = ("kind", "inputs", "key", "answer", "error")
        parts = {name: unpack(data[name], tensors) for name in names}
        timing = data.get("timing")
        call = Call(
            **parts,
            timing=None if timing is None else Timing(**timing),
            version_before=data.get("version_before"),
            version_after=data.get("version_after"),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"not a recorded call: {error!r}. Record it again.") from None
    if not _fits(call):
        raise DataError("a recorded call is not made of inputs, a key and times. Record it again.")
    return call


def _fits(call: Call) -> bool:
    times = asdict(call.timing).values() if call.timing else ()
    return (
        call.kind in KINDS
        and isinstance(call.inputs, dict)
        and isinstance(call.key, Key | None)
        and (call.error is None or _is_error(call.error))
        and all(isinstance(seconds, float) for seconds in times)
        and isinstance(call.version_before, int | None)
        and isinstance(call.version_after, int | None)
    )


def _is_error(error: Any) -> bool:
    return (
        isinstance(error, tuple)
        and len(error) == 2
        and all(isinstance(part, str) for part in error)
    )


@cache
def versions() -> Mapping[str, str]:
    """The software that takes part in a recording, by name."""
    found = {"python": platform.python_version(), "system": platform.system()}
    for name in ("pib-twin", "torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
