"""How frames lie on disk: the names, types and attributes of one netCDF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
from numpy.typing import NDArray

from twin.backend import Port
from twin.files import replacing
from twin.key import SAMPLE_BLOCK

FRAMES, DONE = "frames", "samples_done"
RATIO = "ratio"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a file of frames is made for.

    samples: in all; chunk: samples per call; port: of the readings.
    attributes: of the file, numbers and text. labels: (samples,) integers.
    """

    samples: int
    chunk: int
    port: Port
    attributes: Mapping[str, Any]
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        return int(np.prod(self.port.shape))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integer that holds every code; float32 for plain floats."""
        port = self.port
        if not port.is_coded:
            return np.dtype(np.float32)
        kinds = (np.uint8, np.uint16, np.int8, np.int16, np.int32, np.int64)
        fits = (k for k in kinds if _holds(k, port.code_low) and _holds(k, port.code_high))
        return np.dtype(next(fits))


def make(
    path: Path, layout: Layout, ratio: NDArray[np.float64], storage: Mapping[str, Any]
) -> None:
    """A file without frames at `path`, whole or not at all."""
    with replacing(path) as draft, h5netcdf.File(draft, "w") as file:
        file.dimensions = {
            "sample": layout.samples,
            "pixel": layout.pixels,
            "chunk": -(-layout.samples // layout.chunk),
        }
        _describe(file, layout)
        _frames(file, layout, ratio, storage)
        _per_chunk(file)
        if layout.labels is not None:
            _labels(file, layout)


def _describe(file: Any, layout: Layout) -> None:
    for name, value in {**layout.attributes, "chunk_samples": layout.chunk}.items():
        file.attrs[name] = value
    file.create_variable(DONE, (), np.int64, data=np.int64(0))
    file.variables[DONE].attrs["long_name"] = "samples whose frames are in this file"


def _frames(
    file: Any, layout: Layout, ratio: NDArray[np.float64], storage: Mapping[str, Any]
) -> None:
    port = layout.port
    # The block of noise, not the chunk of the call: so the file is the same for
    # any chunk, and reading one sample costs little.
    chunks = (min(SAMPLE_BLOCK, layout.samples), layout.pixels)
    frames = file.create_variable(
        FRAMES, ("sample", "pixel"), layout.dtype, chunks=chunks, **storage
    )
    facts: dict[str, Any] = {
        "long_name": f"reading of port {port.name}",
        "units": "1",
        "value_per_code": np.float64(port.step),
        "full_scale": np.float64(port.full_scale),
        "full_scale_unit": port.unit,
        "reading_shape": json.dumps(port.shape),
    }
    if port.is_coded:
        facts |= {"levels": port.levels, "bits": (port.levels - 1).bit_length()}  # type: ignore[operator]
        if ratio.ndim == 0:
            # float32, as the trainer decodes: the values are the same to the last bit.
            facts["scale_factor"] = np.float32(port.step * float(ratio))
    for name, value in facts.items():
        frames.attrs[name] = value
    dims = ("pixel",) * ratio.ndim
    held = file.create_variable(RATIO, dims, np.float64, data=ratio)
    held.attrs["long_name"] = "range in force over nominal range"
    held.attrs["units"] = "1"


def _per_chunk(file: Any) -> None:
    count = file.dimensions["chunk"].size
    for name, unit, about in (
        ("clock_s", "s", "device time at the end of the chunk"),
        ("saturated", "1", "fraction of codes at the end of their range"),
    ):
        held = file.create_variable(name, ("chunk",), np.float64, data=np.full(count, np.nan))
        held.attrs["units"], held.attrs["long_name"] = unit, about
    held = file.create_variable("drive_digest", ("chunk",), np.uint64, data=np.zeros(count, "u8"))
    held.attrs["long_name"] = "first 64 bits of BLAKE2b of the chunk's drive, float32"


def _labels(file: Any, layout: Layout) -> None:
    labels = np.asarray(layout.labels)
    small = labels.astype(np.min_scalar_type(int(labels.max())))
    held = file.create_variable("labels", ("sample",), small.dtype, data=small)
    held.attrs["long_name"] = "class of the sample"
    if layout.classes:
        held.attrs["class_names"] = json.dumps(layout.classes)


def _holds(kind: type[np.integer[Any]], code: float) -> bool:
    return bool(np.iinfo(kind).min <= code <= np.iinfo(kind).max)
