"""A recording that answers as the device did.

Strict: the recorded run, call by call, to the last bit. Nearest (``twin.nearest``):
any drive, answered by what was recorded for the drive most like it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from twin import errors
from twin.backend import Capabilities, Ranged, Reading, Snapshot, Values, Written
from twin.errors import ConfigError, DataError, PibTwinError, ReplayError, UnknownName, nearest
from twin.key import Key
from twin.mismatch import mismatch, nearby, neighbour
from twin.nearest import Nearest
from twin.plain import owned
from twin.recording import Recording

MODES = ("strict", "nearest")
Mode = Literal["strict", "nearest"]


def replay(
    path: str | Path,
    *,
    mode: Mode = "strict",
    max_distance: float = math.inf,
    verify: bool = True,
) -> Replayed:
    """The recording in the folder `path` as a backend; options as in :class:`Replayed`.

    verify: check every block before the first call. DataError if damaged.
    """
    recording = Recording.load(path, verify=verify)
    return Replayed(recording, mode=mode, max_distance=max_distance)


class Replayed:
    """A recording as a backend, with the capabilities and device_id it was taken from.

    strict: calls are answered in their order. One that differs in kind, key or
    any input raises ReplayError, which names what differs, by how much, and the
    nearest recorded call; it is not consumed.

    nearest: each sample of a drive gets the reading of the nearest drive
    (Euclidean distance over the drive ports, dimensionless) that was recorded
    in the state in force; keys, sample numbers, order and device time play no
    part. Any other call must have been recorded in the state in force. Beyond
    max_distance, ReplayError.
    """

    def __init__(
        self, recording: Recording, mode: Mode = "strict", *, max_distance: float = math.inf
    ) -> None:
        if mode not in MODES:
            raise UnknownName(f"replay: no mode {mode!r}. {nearest(str(mode), MODES)}")
        if not max_distance >= 0:
            raise ConfigError(f"replay: max_distance must be >= 0, got {max_distance}.")
        self._recording = recording
        self._next = 0
        self._nearest = Nearest(recording, max_distance) if mode == "nearest" else None

    @property
    def capabilities(self) -> Capabilities:
        return self._recording.capabilities

    @property
    def remaining(self) -> int:
        """How many recorded calls have not been asked for yet (strict)."""
        return len(self._recording.calls) - self._next

    @property
    def last_distance(self) -> Tensor | None:
        """(batch,) of the last forward: distance of each sample to the recorded one
        that answered for it; None before the first, and in strict mode."""
        return None if self._nearest is None else self._nearest.last_distance

    def program(self, setting: Values, *, key: Key) -> Written:
        return self._answer("program", key, setting=setting)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        if self._nearest is not None:
            return self._nearest.forward(drive, shots)
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
        if self._nearest is not None:
            return self._nearest.act(kind, owned(inputs))
        where = f"replay of {self.capabilities.device_id!r}, call {self._next + 1}"
        if self.remaining == 0:
            raise ReplayError(
                f"{where}: {kind} was asked, but only {self._next} calls were recorded. "
                "Record a longer run."
            )
        call = self._recording.calls[self._next]
        asked = owned(inputs)
        wrong = mismatch(call, kind, key, asked)
        if wrong:
            around = nearby(self._recording.calls, self._next)
            hint = neighbour(around, self._next, kind, key, asked)
            raise ReplayError(f"{where}: {wrong}. {hint} Repeat the recorded run exactly.")
        self._next += 1
        if call.error is not None:
            raise _typed(*call.error)
        return owned(call.answer)


def _typed(name: str, message: str) -> PibTwinError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, PibTwinError)):
        raise DataError(f"the recording holds an unknown error {name!r}. Record it again.")
    return kind(message)
