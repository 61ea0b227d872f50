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

import torch
from torch import Tensor

from twin.backend import Backend, MinimalBackend, Port, Ranged, Reading, Snapshot, Values, Written
from twin.checks import batch_of, checked, copied, decoded, dial_value, require_finite, rows_of
from twin.complete import complete
from twin.errors import (
    DeviceUnavailable,
    DialError,
    DriveError,
    ProcessStateError,
    ReadingError,
    SettingError,
    Unsupported,
)
from twin.key import SAMPLE_BLOCK, Key
from twin.ledger import Cost, Ledger
from twin.plain import owned

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A decoded answer of a backend.

    values: (batch, *reading) or (shots, batch, *reading), float32, in units of
    the port's nominal full scale. extra: the same for further ports. ratio:
    range in force / nominal range, of the last chunk of a batch that was split.
    """

    values: Tensor
    saturated: float
    state_version: int
    clock_s: float
    extra: Mapping[str, Tensor]
    ratio: float | Tensor = 1.0


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
        ports = self.capabilities.settings
        clean = checked(setting, ports, self.name, "setting", SettingError)
        written = self._call(lambda k: self._backend.program(copied(clean), key=k), key)
        for port in self.capabilities.settings:
            if port.name in written.achieved:
                what = f"{self.name}: achieved {port.name!r}"
                require_finite(written.achieved[port.name], what)
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
        Raises DriveError before anything happens. A chunk whose answer is
        refused (ReadingError) is not counted; the chunks before it are.
        """
        if shots is not None and shots < 1:
            raise DriveError(f"{self.name}: shots must be at least 1, got {shots}.")
        if first_sample < 0:
            raise DriveError(f"{self.name}: first_sample must be >= 0, got {first_sample}.")
        clean = self._drive(drive)
        parts = [
            self._pass(rows_of(clean, rows), key, first_sample + rows.start, shots, phase)
            for rows in self._chunks(batch_of(clean), first_sample)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts, axis=0 if shots is None else 1)

    def set_range(self, drive: Values, *, key: Key, phase: str = "train") -> Ranged:
        """Let the device find its range on `drive`; costs passes.

        A device with a max_batch sees the first max_batch samples.
        """
        if not self.capabilities.rangeable:
            raise Unsupported(f"{self.name}: this backend has no adjustable range.")
        clean = rows_of(self._drive(drive), slice(0, self.capabilities.max_batch))
        ranged = self._call(lambda k: self._backend.set_range(copied(clean), key=k), key)
        require_finite(torch.as_tensor(ranged.ratio), f"{self.name}: range")
        self._count(phase, Cost(ranging_passes=ranged.passes), ranged)
        return ranged

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        """Turn a dial; refuses unknown and read-only dials and bad values."""
        turned = dial_value(self.capabilities.dial(dial), value, self.name)
        return self._call(lambda k: self._backend.adjust(dial, turned, key=k), key)

    def wait(self, seconds: float, *, phase: str = "wait") -> None:
        """Let `seconds` of device time pass."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DialError(f"{self.name}: a wait must be finite and >= 0 s, got {seconds}.")
        with self._guard():
            self._backend.wait(seconds)
        self.ledger.add(self.name, phase, Cost(waited_seconds=seconds))

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

    def _drive(self, drive: Values) -> Values:
        return checked(
            drive, self.capabilities.drives, self.name, "drive", DriveError, batched=True
        )

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
        batch = batch_of(drive)
        reading = self._call(
            # Copied for each attempt: a driver may spoil its input, then refuse.
            lambda k: self._backend.forward(copied(drive), key=k, first_sample=first, shots=shots),
            key,
        )
        lead = (batch,) if shots is None else (shots, batch)
        main, *others = self.capabilities.readings
        values = decoded(reading.codes, main, lead, reading.ratio, self.name)
        extra = {p.name: self._extra(reading, p, lead) for p in others}
        self._count(phase, Cost(passes=batch * (shots or 1)), reading)
        return Measured(
            values=values,
            saturated=float(reading.saturated),
            state_version=reading.state_version,
            clock_s=reading.clock_s,
            extra=extra,
            ratio=owned(reading.ratio),
        )

    def _extra(self, reading: Reading, port: Port, lead: tuple[int, ...]) -> Tensor:
        if port.name not in reading.extra:
            raise ReadingError(f"{self.name}: the reading lacks the declared port {port.name!r}.")
        return decoded(reading.extra[port.name], port, lead, 1.0, self.name)

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
        try:
            with torch.no_grad():
                yield
        finally:
            changed = (torch.get_default_dtype(), torch.get_num_threads()) != (dtype, threads)
            if changed:
                torch.set_default_dtype(dtype)
                torch.set_num_threads(threads)
        if changed:
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
        ratio=last.ratio,
    )
