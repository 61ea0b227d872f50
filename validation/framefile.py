"""Frames of a data set on disk: one netCDF file, whole at every moment.

Integer codes (sample, pixel) with what decodes them. All space is taken when
the file is made, so that writing frames changes data bytes only: whenever the
process is killed, the file opens and says how many samples are done.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py  # type: ignore[import-untyped]
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from twin.errors import CheckpointError, DataError
from twin.files import replacing
from validation.framelayout import DONE, FRAMES, RATIO, Layout, make


@dataclass(frozen=True, kw_only=True)
class Part:
    """One chunk as measured. codes: (rows, pixels) in the file's dtype.

    ratio: range in force / nominal, () or (pixels,). saturated: fraction.
    clock_s: device time at its end. digest: 64 bits of the drive's hash.
    """

    codes: NDArray[Any]
    ratio: NDArray[np.float64]
    saturated: float
    clock_s: float
    digest: int = 0


class FrameFile:
    """An open file of frames in the making; nobody else may write to it."""

    def __init__(self, path: Path) -> None:
        """Open the file that `create` made at `path`; DataError if it is none."""
        self.path = path
        try:
            self._file = h5py.File(path, "r+")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be opened for writing ({error}). Is it a file of frames, and is "
                "no other process using it?"
            ) from None
        missing = {FRAMES, DONE, RATIO, "clock_s"} - set(self._file)
        if missing:
            self._file.close()
            raise DataError(f"{path}: not a file of frames, {', '.join(sorted(missing))} missing.")

    @classmethod
    def create(cls, path: Path, layout: Layout, ratio: NDArray[np.float64]) -> Self:
        """A new file without frames, all of its space taken. ratio: as in Part."""
        size = layout.samples * layout.pixels * layout.dtype.itemsize
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path.parent).free
            if size > free:
                raise DataError(
                    f"{path}: {size / 1e9:.3g} GB of frames do not fit, {free / 1e9:.3g} GB are "
                    "free. Choose another folder or fewer samples."
                )
            make(path, layout, ratio, {"dcpl": _all_at_once()})
        except OSError as error:
            raise DataError(f"{path}: cannot be made ({error}). Choose another folder.") from None
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def samples(self) -> int:
        """In all."""
        return int(self._file[FRAMES].shape[0])

    @property
    def done(self) -> int:
        """Samples whose frames are in the file."""
        return int(self._file[DONE][()])

    @property
    def digests(self) -> list[int]:
        """Of the drive of each chunk, 0 where there is none yet."""
        return [int(value) for value in self._file["drive_digest"][:]]

    @property
    def compressed(self) -> bool:
        return self._file[FRAMES].compression is not None

    def require(self, layout: Layout) -> None:
        """CheckpointError unless the file was made for `layout`."""
        shape = (layout.samples, layout.pixels)
        if self._file[FRAMES].shape != shape or self._file[FRAMES].dtype != layout.dtype:
            raise CheckpointError(
                f"{self.path}: holds {self._file[FRAMES].shape} {self._file[FRAMES].dtype}, this "
                f"run makes {shape} {layout.dtype}. Give the same data set and device."
            )
        for name, value in {**layout.attributes, "chunk_samples": layout.chunk}.items():
            # What computed the first part is a fact, not a condition.
            if name != "versions" and self._said(name) != value:
                raise CheckpointError(
                    f"{self.path}: was begun with {name} = {self._said(name)}, this run has "
                    f"{value}. Give the same arguments, or another name."
                )

    def write(self, first: int, part: Part) -> None:
        """Put the chunk that starts at sample `first` in its place, durably."""
        held = self._file[RATIO][()]
        if not np.array_equal(held, part.ratio):
            raise DataError(
                f"{self.path}: the range of the device changed before sample {first} (ratio "
                f"{np.mean(held):g}, now {np.mean(part.ratio):g}). Do not range or restart the "
                "device during a stream."
            )
        number = first // self._said("chunk_samples")
        try:
            self._file[FRAMES][first : first + len(part.codes)] = part.codes
            self._file["clock_s"][number] = part.clock_s
            self._file["saturated"][number] = part.saturated
            self._file["drive_digest"][number] = part.digest
            self._flush()
        except OSError as error:
            raise DataError(
                f"{self.path}: sample {first} cannot be written ({error}). Free space and resume."
            ) from None

    def mark(self, done: int) -> None:
        """Say that the first `done` samples are in the file."""
        self._file[DONE][()] = done
        self._flush()

    def close(self) -> None:
        self._file.close()

    def _said(self, name: str) -> Any:
        """An attribute of the file; netCDF keeps a number as an array of one."""
        value = self._file.attrs.get(name)
        return value.item() if isinstance(value, np.ndarray | np.generic) else value

    def _flush(self) -> None:
        self._file.flush()
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())


def opened(path: Path | str) -> xr.Dataset:
    """The samples that are done, lazily: frames are read when they are used.

    frames: values in units of full scale if one ratio holds for all pixels,
    else codes (attribute value_per_code; times the variable ratio). Give
    xarray mask_and_scale=False for plain codes. Close it after use.
    """
    try:
        found = xr.open_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable file of frames ({error}).") from None
    if FRAMES not in found or DONE not in found:
        found.close()
        raise DataError(f"{path}: not a file of frames, {FRAMES} or {DONE} missing.")
    chunks = -(-int(found[DONE]) // int(found.attrs["chunk_samples"]))
    return found.isel(sample=slice(0, int(found[DONE])), chunk=slice(0, chunks))


def compress(path: Path, layout: Layout, level: int) -> None:
    """Replace the finished file at `path` by one with gzip, in one step."""
    with replacing(path) as draft, h5py.File(path, "r") as old:
        options = {"compression": "gzip", "compression_opts": level, "shuffle": True}
        make(draft, layout, old[RATIO][()], options)
        with h5py.File(draft, "r+") as new:
            for name in (DONE, "clock_s", "saturated", "drive_digest"):
                new[name][...] = old[name][()]
            for first in range(0, layout.samples, layout.chunk):
                rows = slice(first, first + layout.chunk)
                new[FRAMES][rows] = old[FRAMES][rows]


def _all_at_once() -> Any:
    """All space at making: later writes move nothing and change no structure."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return plan
