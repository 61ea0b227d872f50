"""One stream in progress: what is sent where, and how it goes on after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from twin.backend import Port, Snapshot
from twin.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DriveError,
    PibTwinError,
    ReadingError,
)
from twin.fence import Fence, Measured
from twin.files import write_atomic
from twin.key import SAMPLE_BLOCK, Key
from twin.plain import pack, unpack
from validation.framefile import FrameFile, Part
from validation.framelayout import Layout
from validation.summary import plain, versions


class Drives(Protocol):
    """Samples that are handed out in slices: an array, a tensor, a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass
class Job:
    """One stream: what is sent where, and the open file once there is one."""

    fence: Fence
    drives: Drives
    path: Path
    key: Key
    layout: Layout
    file: FrameFile | None = None

    @classmethod
    def of(
        cls,
        fence: Fence,
        drives: Drives,
        path: Path,
        key: Key,
        chunk: int,
        labels: Any,
        classes: tuple[str, ...],
        options: Mapping[str, Any] | None,
    ) -> Self:
        """Checked before anything happens: ConfigError, DataError."""
        if chunk < SAMPLE_BLOCK or chunk % SAMPLE_BLOCK:
            raise ConfigError(
                f"a chunk is a multiple of {SAMPLE_BLOCK} samples (a block of noise), got {chunk}."
            )
        samples = len(drives)
        if samples == 0:
            raise DataError("a stream needs one sample or more, got none.")
        layout = Layout(
            samples=samples,
            chunk=chunk,
            port=fence.reading_port,
            attributes=_attributes(fence, key, options or {}),
            labels=None if labels is None else _checked_labels(labels, samples),
            classes=classes,
        )
        return cls(fence, drives, path, key, layout)

    @property
    def state_path(self) -> Path:
        """The device's state after the samples that are done, beside the file."""
        return self.path.with_name(f"{self.path.name}.state")

    @property
    def compressed(self) -> bool:
        return self.file is not None and self.file.compressed

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def fresh(self) -> int:
        """Make sure that nothing is overwritten; the file is made with the first frames."""
        if self.path.exists():
            raise DataError(f"{self.path} exists already. Resume it, or give another name.")
        self.state_path.unlink(missing_ok=True)
        return 0

    def resumed(self) -> int:
        """Open the file, put the device back, return the first sample to measure."""
        if not self.path.is_file():
            raise CheckpointError(f"{self.path}: there is no stream to resume here.")
        self.file = FrameFile(self.path)
        try:
            self.file.require(self.layout)
            done = self.file.done
            if self.fence.capabilities.restorable and 0 < done < self.layout.samples:
                done = self._restored(done)
            self._require_same_drives(done)
        except BaseException:
            self.file.close()
            raise
        return done

    def advance(self, start: int) -> None:
        """Measure the chunk that starts at sample `start` and put it on disk."""
        part = self._measured(start)
        if self.file is None:
            self.file = FrameFile.create(self.path, self.layout, part.ratio)
        self.file.write(start, part)
        stop = start + len(part.codes)
        # The state before the mark: a run killed between the two goes on from
        # the state, whose frames are on disk.
        if self.fence.capabilities.restorable:
            _keep(self.state_path, stop, self.fence.snapshot())
        self.file.mark(stop)

    def _drive(self, start: int) -> Tensor:
        stop = min(start + self.layout.chunk, self.layout.samples)
        values = self.drives[start:stop]
        # A copy of an array: torch warns of memory that it may not write to.
        return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))

    def _measured(self, start: int) -> Part:
        drive = self._drive(start)
        port = self.layout.port
        codes = np.empty((len(drive), self.layout.pixels), self.layout.dtype)
        saturated, ratio, clock_s = 0.0, np.ones(()), 0.0
        try:
            for rows in _passes(len(drive), self.fence.capabilities.max_batch):
                measured = self.fence.forward(
                    drive[rows], key=self.key, first_sample=start + rows.start, phase="stream"
                )
                ratio = _ratio(measured.ratio, port)
                codes[rows] = _codes(measured, port, ratio).flatten(1).numpy()
                saturated += measured.saturated * len(drive[rows]) / len(drive)
                clock_s = measured.clock_s
        except DriveError as error:
            raise DriveError(f"samples {start} to {start + len(drive) - 1}: {error}") from None
        return Part(
            codes=codes, ratio=ratio, saturated=saturated, clock_s=clock_s, digest=_digest(drive)
        )

    def _restored(self, done: int) -> int:
        samples, snapshot = _kept(self.state_path)
        if not done <= samples <= min(done + self.layout.chunk, self.layout.samples):
            raise CheckpointError(
                f"{self.state_path}: is the state after {samples} samples, {self.path.name} has "
                f"{done}. They are of different runs; begin again."
            )
        self.fence.restore(snapshot)
        return samples

    def _require_same_drives(self, done: int) -> None:
        assert self.file is not None
        held = self.file.digests
        for number, start in enumerate(range(0, done, self.layout.chunk)):
            if held[number] != _digest(self._drive(start)):
                raise CheckpointError(
                    f"{self.path}: samples from {start} on were made from another drive. Give "
                    "the same data set."
                )


def _attributes(fence: Fence, key: Key, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of its origin, as numbers and text."""
    drive = fence.drive_port
    return {
        "title": "readings of one device, one row per sample",
        "device_id": fence.capabilities.device_id,
        "reading_port": fence.reading_port.name,
        "drive_port": drive.name,
        "drive_full_scale": drive.full_scale,
        "drive_unit": drive.unit,
        "seed": str(key.seed),
        "key": json.dumps([key.seed, *key.path]),
        "options": json.dumps(plain(options), sort_keys=True),
        "versions": json.dumps(versions()),
    }


def _checked_labels(labels: Any, samples: int) -> NDArray[Any]:
    found = np.asarray(labels)
    if found.shape != (samples,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise DataError(
            f"labels are {samples} integers >= 0, one per sample, got shape {found.shape} of "
            f"{found.dtype}. Leave them out, or give one for each sample."
        )
    return found


def _passes(batch: int, most: int | None) -> Iterator[slice]:
    """Calls that a device with max_batch `most` takes, none across an aligned block
    that it could have had whole."""
    stride = batch
    if most is not None and most < batch:
        small = 1 << (most.bit_length() - 1)
        stride = small if most < SAMPLE_BLOCK else most - most % SAMPLE_BLOCK
    for start in range(0, batch, stride):
        yield slice(start, min(start + stride, batch))


def _ratio(ratio: float | Tensor, port: Port) -> NDArray[np.float64]:
    """() where one ratio holds for all of the reading, else (pixels,)."""
    if not port.is_coded:
        return np.ones(())  # such values are stored decoded
    found = torch.as_tensor(ratio, dtype=torch.float64).cpu()
    if not bool((found > 0).all()):
        raise ReadingError(f"the range of port {port.name!r} must be > 0, got {found.min():g}.")
    if bool((found == found.flatten()[0]).all()):
        return found.flatten()[0].numpy()
    return found.expand(port.shape).flatten().numpy()


def _codes(measured: Measured, port: Port, ratio: NDArray[np.float64]) -> Tensor:
    """The integers that `measured` was decoded from, in its own memory, as floats."""
    if not port.is_coded:
        return measured.values
    step = torch.from_numpy(np.asarray(ratio * port.step))
    scale = step if step.ndim == 0 else step.view(port.shape)
    # A float32 value is code x scale to 1e-7, so below 2^22 codes rounding is exact.
    return measured.values.div_(scale.to(torch.float32)).round_()


def _digest(drive: Tensor) -> int:
    values = drive.detach().cpu().to(torch.float32).contiguous().numpy().data
    return int.from_bytes(hashlib.blake2b(values, digest_size=8).digest(), "little")


def _keep(path: Path, samples: int, snapshot: Snapshot) -> None:
    tensors: dict[str, Tensor] = {}
    state = json.dumps(pack({"samples": samples, "snapshot": snapshot}, tensors), allow_nan=False)
    write_atomic(path, save_tensors(tensors, {"state": state}))


def _kept(path: Path) -> tuple[int, Snapshot]:
    try:
        with safe_open(path, framework="pt") as held:
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
            state = unpack(json.loads((held.metadata() or {})["state"]), tensors)
        samples, snapshot = state["samples"], state["snapshot"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, PibTwinError) as error:
        raise CheckpointError(
            f"{path}: the device's state cannot be read ({type(error).__name__}: {error}). "
            "Begin again."
        ) from None
    if not (isinstance(samples, int) and isinstance(snapshot, Snapshot)):
        raise CheckpointError(f"{path}: not the state of a stream. Begin again.")
    return samples, snapshot
