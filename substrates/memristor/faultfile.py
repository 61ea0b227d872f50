"""Fault maps on disk: one .npz of plain arrays with a version and a digest.

No pickle: a file from a stranger is data or is refused.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twin.errors import DataError
from twin.files import digest, write_atomic

FORMAT = 1
HEADER = {"format": np.dtype("<i4"), "adc_bits": np.dtype("<i4"), "digest": np.dtype("<U64")}


def canonical(adc_bits: int, arrays: Mapping[str, Tensor]) -> bytes:
    """The map as bytes that are equal for equal maps only."""
    parts = [f"fault map {FORMAT}, {adc_bits} b".encode()]
    for name, array in arrays.items():
        plain = _little(array.numpy())
        parts += [f"|{name} {plain.dtype.str} {plain.shape}|".encode(), plain.tobytes()]
    return b"".join(parts)


def write(path: Path, adc_bits: int, arrays: Mapping[str, Tensor]) -> None:
    """Write or replace the file at `path`; equal maps give equal files."""
    header = (FORMAT, adc_bits, digest(canonical(adc_bits, arrays)))
    parts: dict[str, Any] = {name: _little(array.numpy()) for name, array in arrays.items()}
    for (name, dtype), value in zip(HEADER.items(), header, strict=True):
        parts[name] = np.array(value, dtype=dtype)
    buffer = io.BytesIO()
    # A stream, since np.savez adds .npz to names that lack it.
    np.savez(buffer, **parts)
    write_atomic(path, buffer.getvalue())


def read(path: Path, names: list[str]) -> tuple[int, dict[str, Tensor]]:
    """adc_bits and the arrays of a file written by :func:`write`, digest checked."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a fault map (.npz), got: {error.strerror}.") from None
    found = _parsed(path, content)
    _same_names(path, found, [*HEADER, *names])
    version = found["format"]
    if version.shape != () or version.dtype.kind not in "iu" or version != FORMAT:
        raise DataError(f"{path}: expected a fault map of format {FORMAT}, got {version!r}.")
    for name, dtype in HEADER.items():
        if found[name].dtype != dtype or found[name].shape != ():
            raise DataError(f"{path}: {name!r} must be one {dtype}, got {found[name]!r}.")
    adc_bits = int(found["adc_bits"])
    arrays = {name: _tensor(path, name, found[name]) for name in names}
    if digest(canonical(adc_bits, arrays)) != str(found["digest"]):
        raise DataError(f"{path}: the fault map is damaged (its digest differs). Copy it again.")
    return adc_bits, arrays


def _parsed(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # Stored members cannot be larger than the file; packed ones can.
            plain = all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())
        if not plain:
            raise ValueError("its members are compressed")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # whatever a parser of foreign bytes raises
        raise DataError(
            f"{path}: not a fault map, or a damaged one ({type(error).__name__}: {error}). "
            "Write it with FaultMap.save."
        ) from None


def _same_names(path: Path, found: Mapping[str, np.ndarray], expected: list[str]) -> None:
    lacking = [name for name in expected if name not in found]
    strange = [name for name in found if name not in expected]
    if lacking or strange:
        raise DataError(
            f"{path}: a fault map holds {', '.join(expected)}; this file lacks "
            f"[{', '.join(lacking)}] and has [{', '.join(strange)}] besides."
        )


def _tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "bif":
        raise DataError(f"{path}: {name!r} must hold numbers, got {array.dtype}.")
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise DataError(f"{path}: {name!r} is of a type unknown here, {array.dtype}.") from None


def _little(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
