"""Backends around backends: Recorded here; Replayed and Faulty by the same door.

Each is a full backend. To change a backend, wrap it; none is inherited from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
from twin.blocks import Blocks, Writer
from twin.calls import Call, Stopwatch, version_after, versions
from twin.complete import complete
from twin.errors import PibTwinError
from twin.faulty import Faulty
from twin.key import Key
from twin.plain import owned, pack
from twin.recording import Recording
from twin.replay import Replayed

__all__ = ["Faulty", "Recorded", "Replayed"]

Answer = TypeVar("Answer")


class Recorded:
    """A backend whose every call, with its answer or typed error, is kept.

    to: a folder that does not exist yet. Each call is on the disk before its
    answer is given out, so a killed process loses at most the call under way;
    close() marks the recording as whole. Without it calls are kept in memory.
    If a call cannot be written DataError is raised, and nothing more is taken.

    close is not recorded. Errors that are not from `twin.errors` are not
    either: they are defects of a driver, not behaviour of a device.
    """

    def __init__(self, backend: MinimalBackend, to: str | Path | None = None) -> None:
        self._backend: Backend = complete(backend)
        self._calls: list[Call] = []
        self._version: int | None = None
        self._created_unix_s = time.time()
        self._path = None if to is None else Path(to)
        self._writer = None if self._path is None else self._begin(self._path)

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    @property
    def recording(self) -> Recording:
        """Everything recorded so far; calls on the disk are read when asked for."""
        on_disk = None if self._path is None else Blocks(self._path)
        return Recording(
            self.capabilities,
            tuple(self._calls) if on_disk is None else on_disk,
            closed=on_disk is None or on_disk.end is not None,
            versions=versions(),
            created_unix_s=self._created_unix_s,
        )

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
        # The device first: it must be safe even where the disk is full.
        self._backend.close()
        if self._writer is not None:
            self._writer.close()

    def _begin(self, path: Path) -> Writer:
        return Writer(
            path, self.capabilities, versions=versions(), created_unix_s=self._created_unix_s
        )

    def _kept(self, kind: str, key: Key | None, act: Callable[[], Answer], **inputs: Any) -> Answer:
        # Copied before the call: a faulty driver may change its input.
        before = owned(inputs)
        self._require_recordable(before)
        watch, known = Stopwatch(), self._version
        try:
            answer = act()
        except PibTwinError as error:
            timing = watch.stopped()
            if hasattr(errors, type(error).__name__):
                what = (type(error).__name__, str(error))
                self._keep(Call(kind, before, key, None, what, timing, known, known))
            raise
        timing = watch.stopped()
        self._version = version_after(kind, answer, known)
        self._keep(Call(kind, before, key, owned(answer), None, timing, known, self._version))
        return answer

    def _require_recordable(self, inputs: dict[str, Any]) -> None:
        """Refuse what could not be written before the device acts on it."""
        if self._writer is not None:
            self._writer.require_open()
            pack(inputs, {})

    def _keep(self, call: Call) -> None:
        if self._writer is None:
            self._calls.append(call)
        else:
            self._writer.append(call)
