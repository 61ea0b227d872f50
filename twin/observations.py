"""A recording as one table: what went in, what came out, when, in which state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from twin.backend import Capabilities, Ranged, Reading, Written, single
from twin.errors import DataError
from twin.recording import Call, Recording

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Observations:
    """One row per sample and shot of a recording, in the order of time.

    drive: (n, inputs). value: (n, outputs), in units of the nominal full scale.
    at_end: (n, outputs), codes at an end of their range. step: (outputs,), value of a
    code in force at the end. write: (n,), how many writes came before, and rest: how
    many waits. age_s: (n,), since the last write; clock_s: (n,), device time.
    group: (n,), equal for equal drives in one state. burst: (n,), equal for shots of
    one sample in one call. dials: value of each number dial that was turned, (n,).
    settings: of each write, (writes, *setting), flattened behind the first.
    """

    capabilities: Capabilities
    drive: Floats
    value: Floats
    at_end: npt.NDArray[np.bool_]
    step: Floats
    write: Ints
    rest: Ints
    age_s: Floats
    clock_s: Floats
    group: Ints
    burst: Ints
    dials: Mapping[str, Floats]
    settings: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.drive)

    def rows(self, chosen: npt.NDArray[Any]) -> Observations:
        """Some rows, by mask or index."""
        names = ("drive", "value", "at_end", "write", "rest", "age_s", "clock_s", "group", "burst")
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in names}
        dials = {name: value[chosen] for name, value in self.dials.items()}
        return replace(self, **parts, dials=dials)


def observations(recording: Recording) -> Observations:
    """The table of a recording's forward passes; calls that failed are left out.

    DataError where there are none, or where a snapshot was restored: what the
    device then held cannot be told from the calls.
    """
    reader = _Reader(recording.capabilities)
    for call in recording.calls:
        if call.error is None:
            reader.take(call)
    return reader.table()


class _Reader:
    """Follows the calls of a recording through the states of its device."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._clock_s = self._written_s = 0.0
        self._writes = self._rests = self._bursts = 0
        self._settings: list[Floats] = []
        self._dials: dict[str, float] = {d.name: d.default for d in capabilities.dials}
        self._turned: set[str] = set()
        self._parts: list[dict[str, Any]] = []
        self._step = np.ones(1)

    def take(self, call: Call) -> None:
        match call.kind:
            case "forward":
                self._forward(call)
            case "program":
                self._program(call)
            case "wait":
                self._clock_s += float(call.inputs["seconds"])
                self._rests += 1
            case "adjust":
                self._adjust(call)
            case "set_range" if isinstance(call.answer, Ranged):
                self._clock_s += call.answer.device_seconds
            case "restore":
                raise DataError(
                    "the recording restores a snapshot, so that what the device held is not in "
                    "it. Record a probe of a device that is only written, read and left alone."
                )

    def _program(self, call: Call) -> None:
        port = self._capabilities.settings[0]
        setting = single(call.inputs["setting"], port)
        self._settings.append(setting.double().reshape(-1).numpy())
        if isinstance(call.answer, Written):
            self._clock_s += call.answer.device_seconds
        self._writes += 1
        self._written_s = self._clock_s

    def _adjust(self, call: Call) -> None:
        dial, value = str(call.inputs["dial"]), call.inputs["value"]
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            self._dials[dial] = float(value)
            self._turned.add(dial)

    def _forward(self, call: Call) -> None:
        reading = call.answer
        if not isinstance(reading, Reading):
            raise DataError(f"a forward pass was answered by {type(reading).__name__}.")
        port = self._capabilities.readings[0]
        drive = single(call.inputs["drive"], self._capabilities.drives[0]).double().flatten(1)
        codes = reading.codes if call.inputs.get("shots") else reading.codes[None]
        shots, batch = codes.shape[:2]
        ratio = torch.as_tensor(reading.ratio, dtype=torch.float64)
        value = (codes.double() * port.step * ratio).reshape(shots * batch, -1)
        raw = codes.reshape(shots * batch, -1)
        start = max(self._clock_s, reading.clock_s - reading.device_seconds)
        time = start + reading.device_seconds * (np.arange(shots * batch) + 0.5) / (shots * batch)
        self._clock_s = max(reading.clock_s, start + reading.device_seconds)
        outputs = value.shape[1]
        self._step = np.broadcast_to((port.step * ratio).reshape(-1).numpy(), (outputs,)).copy()
        burst = self._bursts + np.tile(np.arange(batch), shots)
        self._bursts += batch
        on_grid = self._capabilities.drives[0].on_grid(drive)
        self._parts.append(
            {
                "drive": on_grid.repeat(shots, 1).numpy(),
                "value": value.numpy(),
                "at_end": ((raw <= port.code_low) | (raw >= port.code_high)).numpy(),
                "write": np.full(shots * batch, self._writes),
                "rest": np.full(shots * batch, self._rests),
                "age_s": time - self._written_s,
                "clock_s": time,
                "burst": burst,
                "dials": dict(self._dials),
            }
        )

    def table(self) -> Observations:
        if not self._parts:
            raise DataError(
                "the recording holds no forward pass. Probe the device before calibrating."
            )
        names = [name for name in self._parts[0] if name != "dials"]
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in names}
        lengths = [len(part["drive"]) for part in self._parts]
        dials = {
            name: np.repeat([part["dials"][name] for part in self._parts], lengths)
            for name in sorted(self._turned)
        }
        return Observations(
            capabilities=self._capabilities,
            step=self._step,
            group=_groups(joined["drive"], joined["write"], joined["rest"]),
            dials=dials,
            settings=tuple(self._settings),
            **joined,
        )


def _groups(drive: Floats, write: Ints, rest: Ints) -> Ints:
    """Numbers that are equal for equal drives of one write and rest."""
    known: dict[bytes, int] = {}
    states = np.stack([write, rest], 1)
    rows = (d.tobytes() + s.tobytes() for d, s in zip(drive, states, strict=True))
    return np.array([known.setdefault(row, len(known)) for row in rows], np.int64)
