"""A recording as one table: what went in, what came out, when, in which state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from twin.backend import Capabilities, Ranged, Reading, Written, single
from twin.doubts import Doubts
from twin.errors import DataError
from twin.recording import Call, Recording
from twin.sincewrite import SinceWrite

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHUTTER = "shutter"
"""The one dial that a probe turns on its way: frames with it shut are of the dark."""

COLUMNS = (
    "drive", "value", "at_end", "write", "rest", "age_s", "clock_s", "group", "burst", "ranging",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Observations:
    """One row per sample and shot of a recording, in the order of time.

    drive: (n, inputs). value: (n, outputs), in units of the nominal full scale.
    at_end: (n, outputs), codes at an end of their range. step: (outputs,), value of a
    code in force at the end. write: (n,), how many writes came before, and rest: how
    many waits. clock_s: (n,), device time. age_s: (n,), device time since the last write,
    whatever the device did before; before any write, since the recording began.
    group: (n,), equal for equal drives of one write, rests or not. burst: (n,), equal for
    shots of one sample in one call. ranging: (n,), equal for readings in equal ranges.
    dials: value of each number dial that was turned, (n,).
    settings: of each write, (writes, *setting), flattened behind the first.
    """

    capabilities: Capabilities
    drive: Floats
    value: Floats
    at_end: Mask
    step: Floats
    write: Ints
    rest: Ints
    age_s: Floats
    clock_s: Floats
    group: Ints
    burst: Ints
    ranging: Ints
    dials: Mapping[str, Floats]
    settings: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.drive)

    def rows(self, chosen: npt.NDArray[Any]) -> Observations:
        """Some rows, by mask or index."""
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in COLUMNS}
        dials = {name: value[chosen] for name, value in self.dials.items()}
        return replace(self, **parts, dials=dials)

    def standing(self) -> Mask:
        """(n,), rows read with range and dials, the shutter aside, as at the last reading."""
        same = self.ranging == self.ranging[-1]
        for name, value in self.dials.items():
            if name != SHUTTER:
                same &= value == value[-1]
        return np.asarray(same, bool)


def observations(recording: Recording) -> Observations:
    """The table of a recording's forward passes; calls that were refused are left out.

    DataError where there are none, and where the state behind a reading cannot be told from
    the calls: a snapshot was restored, a call ended in an unknown outcome, a map was turned.
    """
    reader = _Reader(recording.capabilities)
    for call in recording.calls:
        reader.take(call)
    return reader.table()


class _Reader:
    """Follows the calls of a recording through the states of its device."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._clock_s = 0.0
        self._since, self._doubts = SinceWrite(capabilities.clock), Doubts()
        self._writes = self._rests = self._bursts = 0
        self._settings: list[Floats] = []
        self._dials: dict[str, float] = {d.name: d.default for d in capabilities.dials}
        self._maps: dict[str, torch.Tensor] = {}
        self._turned: set[str] = set()
        self._ranges: dict[bytes, int] = {}
        self._parts: list[dict[str, Any]] = []
        self._step = np.ones(1)

    def take(self, call: Call) -> None:
        self._doubts.follow(call)
        if call.error is not None:
            return
        match call.kind:
            case "forward":
                self._doubts.require_none(self._capabilities.device_id)
                self._forward(call)
            case "program":
                self._program(call)
            case "wait":
                self._pass(float(call.inputs["seconds"]))
                self._rests += 1
            case "adjust":
                self._adjust(call)
            case "set_range" if isinstance(call.answer, Ranged):
                self._pass(call.answer.device_seconds)
            case "restore":
                raise DataError(
                    "the recording restores a snapshot, so that what the device held is not in "
                    "it. Record a probe of a device that is only written, read and left alone."
                )

    def _pass(self, seconds: float) -> None:
        self._clock_s += seconds
        self._since.passed(seconds)

    def _program(self, call: Call) -> None:
        port = self._capabilities.settings[0]
        setting = single(call.inputs["setting"], port)
        self._settings.append(setting.double().reshape(-1).numpy())
        if isinstance(call.answer, Written):
            self._clock_s += call.answer.device_seconds
        self._writes += 1
        self._since.wrote(call.timing)

    def _adjust(self, call: Call) -> None:
        dial, value = str(call.inputs["dial"]), torch.as_tensor(call.inputs["value"])
        if value.ndim == 0:
            self._dials[dial] = float(value)
            self._turned.add(dial)
            return
        known = self._maps.get(dial)
        if self._parts and (known is None or not torch.equal(known, value)):
            raise DataError(
                f"{self._capabilities.device_id}: expected maps that stand still from the first "
                f"reading on, got a turn of {dial!r} behind {len(self._parts)} forward calls. "
                "Turn it first, and record the probe then."
            )
        self._maps[dial] = value

    def _forward(self, call: Call) -> None:
        reading = call.answer
        if not isinstance(reading, Reading):
            raise DataError(f"a forward pass was answered by {type(reading).__name__}.")
        port = self._capabilities.readings[0]
        drive = single(call.inputs["drive"], self._capabilities.drives[0]).double().flatten(1)
        codes = reading.codes if call.inputs.get("shots") else reading.codes[None]
        shots, batch = codes.shape[:2]
        count = shots * batch
        ratio = torch.as_tensor(reading.ratio, dtype=torch.float64)
        value = (codes.double() * port.step * ratio).reshape(count, -1)
        raw = codes.reshape(count, -1)
        time = self._times(reading, count)
        written_s = self._since.written_s(
            time[0] - reading.device_seconds / (2 * count), reading.device_seconds, call.timing
        )
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
                "write": np.full(count, self._writes),
                "rest": np.full(count, self._rests),
                "age_s": time - written_s,
                "clock_s": time,
                "burst": burst,
                "ranging": np.full(count, self._range()),
                "dials": dict(self._dials),
            }
        )

    def _times(self, reading: Reading, count: int) -> Floats:
        """Device time (count,) in the middle of each pass; the clock goes on to their end."""
        seconds = reading.device_seconds
        # A device that tells no time is timed by what its calls took.
        start = max(self._clock_s, reading.clock_s - seconds)
        self._clock_s = max(reading.clock_s, start + seconds)
        return start + seconds * (np.arange(count) + 0.5) / count

    def _range(self) -> int:
        """A number for the range in force."""
        return self._ranges.setdefault(self._step.tobytes(), len(self._ranges))

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
            group=numbered(joined["drive"], joined["write"]),
            dials=dials,
            settings=tuple(self._settings),
            **joined,
        )


def numbered(drive: Floats, state: Ints | None = None) -> Ints:
    """Numbers (n,) from 0 that are equal for equal drives (n, inputs) in equal states (n,)."""
    states = np.zeros(len(drive), np.int64) if state is None else state
    known: dict[bytes, int] = {}
    rows = (d.tobytes() + s.tobytes() for d, s in zip(drive, states, strict=True))
    return np.array([known.setdefault(row, len(known)) for row in rows], np.int64)
