"""The one door to a backend.

Everything that reaches a backend is checked, detached and copied; everything
that comes back is checked, detached, copied and decoded on the port's fixed
scale; every pass is counted. No gradient crosses, whatever the backend tries.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from twin.backend import Backend, MinimalBackend, Port, Ranged, Reading, Snapshot, Values, Written
from twin.complete import complete
from twin.errors import (
    DeviceUnavailable,
    DialError,
    DriveError,
    PibTwinError,
    ProcessStateError,
    ReadingError,
    SettingError,
    UnknownName,
    Unsupported,
    nearest,
)
from twin.key import SAMPLE_BLOCK, Key
from twin.ledger import Cost, Ledger

Answer = TypeVar("Answer")
# Float32 products of values in range may leave it by rounding alone.
SLACK = 1e-5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A decoded answer of a backend.

    values: (batch, *reading) or (shots, batch, *reading), float32, in units of
    the port's nominal full scale. extra: the same for further ports.
    """

    values: Tensor
    saturated: float
    state_version: int
    clock_s: float
    extra: Mapping[str, Tensor]


class Fence:
    """A checked, counted, gradient-free view of one backend.

    name: used in errors and in the ledger. retries: how often a call is
    repeated, under the same call id, when the device says it did not act.
    """

    def __init__(
        self,
        backend: MinimalBackend,
        *,
        name: str,
        ledger: Ledger | None = None,
        run_id: str | None = None,
        retries: int = 2,
    ) -> None:
        self._backend: Backend = complete(backend)
        self.name = name
        self.ledger = ledger if ledger is not None else Ledger()
        self.capabilities = backend.capabilities
        self._run_id = run_id if run_id is not None else uuid.uuid4().hex
        self._calls = 0
        self._retries = retries
        self._closed = False

    @property
    def drive_port(self) -> Port:
        return self.capabilities.drives[0]

    @property
    def reading_port(self) -> Port:
        return self.capabilities.readings[0]

    def program(self, setting: Values, *, key: Key, phase: str = "train") -> Written:
        """Write `setting` (dimensionless, the shape of the setting ports)."""
        if not self.capabilities.programmable:
            raise Unsupported(f"{self.name}: this backend has nothing to program.")
        checked = self._checked(setting, self.capabilities.settings, "setting", SettingError)
        written = self._call(lambda k: self._backend.program(checked(), key=k), key)
        for port in self.capabilities.settings:
            if port.name in written.achieved:
                self._finite(written.achieved[port.name], f"achieved {port.name}")
        self._count(phase, Cost(writes=1, cells=written.cells), written)
        return written

    def forward(
        self,
        drive: Values,
        *,
        key: Key,
        first_sample: int = 0,
        shots: int | None = None,
        phase: str = "train",
    ) -> Measured:
        """One pass of a batch; larger batches go in aligned chunks.

        drive: (batch, *drive port), dimensionless and inside the port's range.
        Raises DriveError, ReadingError; nothing is counted when it does.
        """
        if shots is not None and shots < 1:
            raise DriveError(f"{self.name}: shots must be at least 1, got {shots}.")
        if first_sample < 0:
            raise DriveError(f"{self.name}: first_sample must be >= 0, got {first_sample}.")
        checked = self._checked(drive, self.capabilities.drives, "drive", DriveError, batched=True)
        whole = checked()
        batch = len(whole if isinstance(whole, Tensor) else next(iter(whole.values())))
        parts = [
            self._pass(_rows(whole, rows), key, first_sample + rows.start, shots, phase)
            for rows in self._chunks(batch, first_sample)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts, axis=0 if shots is None else 1)

    def set_range(self, drive: Values, *, key: Key, phase: str = "train") -> Ranged:
        """Let the device find its range on `drive`; costs passes."""
        if not self.capabilities.rangeable:
            raise Unsupported(f"{self.name}: this backend has no adjustable range.")
        checked = self._checked(drive, self.capabilities.drives, "drive", DriveError, batched=True)
        ranged = self._call(lambda k: self._backend.set_range(checked(), key=k), key)
        self._finite(torch.as_tensor(ranged.ratio), "range")
        self._count(phase, Cost(ranging_passes=ranged.passes), ranged)
        return ranged

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        """Turn a dial; refuses unknown and read-only dials and bad values."""
        declared = self.capabilities.dial(dial)
        if declared.read_only:
            raise DialError(f"{self.name}: dial {dial!r} is read-only on this device.")
        shown = torch.as_tensor(np.asarray(value)) if not isinstance(value, Tensor) else value
        if tuple(shown.shape) != declared.shape:
            raise DialError(
                f"{self.name}: dial {dial!r} takes a value of shape {declared.shape}, "
                f"got {tuple(shown.shape)}."
            )
        inside = torch.isfinite(shown) & (shown >= declared.low) & (shown <= declared.high)
        if not bool(inside.all()):
            bad = shown[~inside].flatten()[0].item()
            raise DialError(
                f"{self.name}: dial {dial!r} must be between {declared.low} and "
                f"{declared.high} {declared.unit}, got {bad}."
            )
        turned = shown.detach().clone() if declared.shape else shown.item()
        return self._call(lambda k: self._backend.adjust(dial, turned, key=k), key)

    def wait(self, seconds: float) -> None:
        """Let `seconds` of device time pass."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DialError(f"{self.name}: a wait must be finite and >= 0 s, got {seconds}.")
        with self._guard():
            self._backend.wait(seconds)

    def snapshot(self) -> Snapshot:
        """The device's complete state; Unsupported where not restorable."""
        self._require_restorable("save")
        with self._guard():
            return self._backend.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Put the device back into a state it had."""
        self._require_restorable("restore")
        with self._guard():
            self._backend.restore(snapshot)

    def close(self) -> None:
        """Leave the device safe; only the first call reaches it."""
        if not self._closed:
            self._closed = True
            self._backend.close()

    def _require_restorable(self, verb: str) -> None:
        if not self.capabilities.restorable:
            raise Unsupported(
                f"{self.name}: cannot {verb} a snapshot (capabilities.restorable is False). "
                "Use Replayed to repeat a run."
            )

    def _chunks(self, batch: int, first_sample: int) -> Iterator[slice]:
        limit = self.capabilities.max_batch
        if limit is None or batch <= limit:
            yield slice(0, batch)
            return
        # Chunks end on block boundaries, so that splitting changes no noise.
        stride = max(limit - limit % SAMPLE_BLOCK, min(limit, SAMPLE_BLOCK))
        row = 0
        while row < batch:
            stop = min(batch, row + stride - (first_sample + row) % min(stride, SAMPLE_BLOCK))
            yield slice(row, stop)
            row = stop

    def _pass(self, drive: Values, key: Key, first: int, shots: int | None, phase: str) -> Measured:
        batch = len(drive if isinstance(drive, Tensor) else next(iter(drive.values())))
        reading = self._call(
            # Copied for each attempt: a driver may spoil its input, then refuse.
            lambda k: self._backend.forward(_copied(drive), key=k, first_sample=first, shots=shots),
            key,
        )
        lead = (batch,) if shots is None else (shots, batch)
        main, *others = self.capabilities.readings
        values = self._decoded(reading.codes, main, lead, reading.ratio)
        extra = {p.name: self._extra(reading, p, lead) for p in others}
        self._count(phase, Cost(passes=batch * (shots or 1)), reading)
        return Measured(
            values=values,
            saturated=float(reading.saturated),
            state_version=reading.state_version,
            clock_s=reading.clock_s,
            extra=extra,
        )

    def _extra(self, reading: Reading, port: Port, lead: tuple[int, ...]) -> Tensor:
        if port.name not in reading.extra:
            raise ReadingError(f"{self.name}: the reading lacks the declared port {port.name!r}.")
        return self._decoded(reading.extra[port.name], port, lead, 1.0)

    def _decoded(
        self, codes: Any, port: Port, lead: tuple[int, ...], ratio: float | Tensor
    ) -> Tensor:
        where = f"{self.name}: reading {port.name!r}"
        codes = torch.as_tensor(codes).detach()
        if tuple(codes.shape) != (*lead, *port.shape):
            raise ReadingError(
                f"{where} has shape {tuple(codes.shape)}, expected {(*lead, *port.shape)} "
                "(batch first, one row per sample of the drive)."
            )
        if codes.dtype != port.torch_dtype:
            raise ReadingError(f"{where} has dtype {codes.dtype}, the port says {port.dtype}.")
        self._finite(codes, f"reading {port.name!r}")
        slack = 0.0 if port.is_coded else SLACK * max(1.0, port.high - port.low)
        low, high = codes.min().item(), codes.max().item()
        if low < port.code_low - slack or high > port.code_high + slack:
            raise ReadingError(
                f"{where} spans {low} to {high}, outside its port ({port.code_low} to "
                f"{port.code_high} in codes). Clip in the driver, or declare a wider port."
            )
        ratio = ratio.detach() if isinstance(ratio, Tensor) else ratio
        self._finite(torch.as_tensor(ratio), f"range of {port.name!r}")
        # clone: a driver may reuse its buffer for the next frame.
        return port.decode(codes, ratio).clone()

    def _checked(
        self,
        values: Values,
        ports: tuple[Port, ...],
        what: str,
        error: type[PibTwinError],
        batched: bool = False,
    ) -> Callable[[], Values]:
        """Check once; the returned function makes a fresh copy for each use."""
        by_name = values if isinstance(values, Mapping) else {ports[0].name: values}
        known = {p.name: p for p in ports}
        for name in by_name:
            if name not in known:
                raise UnknownName(f"{self.name}: no {what} port {name!r}. {nearest(name, known)}")
        missing = sorted(set(known) - set(by_name))
        if missing:
            raise error(f"{self.name}: {what} lacks the port(s) {', '.join(missing)}.")
        clean = {n: self._value(v, known[n], what, error, batched) for n, v in by_name.items()}
        if batched and len({len(v) for v in clean.values()}) > 1:
            raise error(f"{self.name}: the ports of the {what} have different batch sizes.")
        if isinstance(values, Mapping):
            return lambda: {n: v.clone() for n, v in clean.items()}
        return lambda: clean[ports[0].name].clone()

    def _value(
        self, value: Tensor, port: Port, what: str, error: type[PibTwinError], batched: bool
    ) -> Tensor:
        where = f"{self.name}: {what} {port.name!r}"
        if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
            raise error(f"{where} must be a tensor of floats, got {_kind(value)}.")
        shape = tuple(value.shape[1:] if batched else value.shape)
        if shape != port.shape or (batched and value.ndim != len(port.shape) + 1):
            wanted = ("batch", *port.shape) if batched else port.shape
            raise error(
                f"{where} has shape {tuple(value.shape)}, the port wants {wanted}. "
                "Transpose it, or build the unit with other sizes."
            )
        if batched and len(value) == 0:
            raise error(f"{where} is an empty batch; a backend takes one sample or more.")
        value = value.detach().to(torch.float32)
        low, high = value.aminmax()
        # NaN fails both comparisons, so it must be asked for by name.
        if not (math.isfinite(low.item()) and math.isfinite(high.item())):
            at = (~torch.isfinite(value)).nonzero()[0].tolist()
            raise error(f"{where} has a NaN or infinite value at index {at}. Clean the input.")
        if low < port.low - SLACK or high > port.high + SLACK:
            raise error(
                f"{where} spans {low:.4g} to {high:.4g}, the port takes {port.low:g} to "
                f"{port.high:g} (1.0 stands for {port.full_scale:g} {port.unit}). Scale it."
            )
        return value.clamp(port.low, port.high)

    def _finite(self, value: Tensor, what: str) -> None:
        value = torch.as_tensor(value)
        if value.dtype.is_floating_point and not _is_finite(value):
            at = (~torch.isfinite(value)).nonzero()[0].tolist()
            raise ReadingError(
                f"{self.name}: {what} holds a NaN or infinite value at index {at}; "
                "a device reports saturation as its end code, never as NaN."
            )

    def _call(self, act: Callable[[Key], Answer], key: Key) -> Answer:
        self._calls += 1
        labelled = key.for_call(f"{self._run_id}-{self._calls}")
        for attempt in range(self._retries + 1):
            try:
                with self._guard():
                    return act(labelled)
            except DeviceUnavailable:
                if attempt == self._retries:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
        # no_grad, not inference_mode: the trainer turns readings into leaves.
        with torch.no_grad():
            yield
        if torch.get_default_dtype() != dtype or torch.get_num_threads() != threads:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            raise ProcessStateError(
                f"{self.name}: the backend changed torch's default dtype or thread count. "
                "Restore both before returning; a driver must not change the process."
            )

    def _count(self, phase: str, cost: Cost, answer: Reading | Written | Ranged) -> None:
        cost.calls = 1
        cost.device_seconds = float(answer.device_seconds)
        cost.joules = float(answer.joules)
        if not (math.isfinite(cost.device_seconds) and math.isfinite(cost.joules)):
            raise ReadingError(
                f"{self.name}: device_seconds and joules must be finite, got "
                f"{cost.device_seconds} s and {cost.joules} J. Report 0.0 where unknown."
            )
        self.ledger.add(self.name, phase, cost)


def _is_finite(value: Tensor) -> bool:
    # aminmax passes NaN on and costs a tenth of isfinite(...).all().
    return value.numel() == 0 or all(math.isfinite(float(end)) for end in value.aminmax())


def _rows(values: Values, rows: slice) -> Values:
    if isinstance(values, Tensor):
        return values[rows]
    return {name: value[rows] for name, value in values.items()}


def _copied(values: Values) -> Values:
    if isinstance(values, Tensor):
        return values.clone()
    return {name: value.clone() for name, value in values.items()}


def _joined(parts: list[Measured], axis: int) -> Measured:
    """Chunks as one measurement; saturation averaged by their sizes."""
    sizes = [p.values.shape[axis] for p in parts]
    saturated = sum(p.saturated * n for p, n in zip(parts, sizes, strict=True)) / sum(sizes)
    last = parts[-1]
    return Measured(
        values=torch.cat([p.values for p in parts], axis),
        saturated=saturated,
        state_version=last.state_version,
        clock_s=last.clock_s,
        extra={n: torch.cat([p.extra[n] for p in parts], axis) for n in last.extra},
    )


def _kind(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
