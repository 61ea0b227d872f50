"""A measured transmission matrix from a file: .npy, .npz or netCDF.

Nothing in the file is executed: object arrays are refused.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from twin.errors import DataError, nearest


def measured_matrix(
    path: Path, channels: int, pixels: int, name: str | None = None, normalise: bool = True
) -> Tensor:
    """The matrix in `path`, (pixels, channels) or (patterns, pixels, channels), complex64.

    name: of the array in an .npz or netCDF file; may be left out where there
    is one. netCDF without complex numbers holds NAME_real and NAME_imag.
    normalise: scale to mean |t|^2 = 1 / channels, the convention of all
    media: a measured matrix is in units of its camera.
    Raises DataError: no such file, damaged, real, NaN, or of another shape.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"matrix {str(path)!r}: expected a file named {', '.join(READERS)}, got "
            f"{path.suffix or 'no suffix'}. Save it with numpy.save."
        )
    if not path.is_file():
        raise DataError(f"matrix {str(path)!r}: no such file. Check medium.path.")
    try:
        values = reader(path, name)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"matrix {str(path)!r} cannot be read as {path.suffix} ({reason}). Save plain complex "
            "numbers, no objects, with numpy.save."
        ) from None
    return _checked(values, str(path), channels, pixels, normalise)


def _checked(values: np.ndarray, where: str, channels: int, pixels: int, normalise: bool) -> Tensor:
    if not np.issubdtype(values.dtype, np.complexfloating):
        raise DataError(
            f"matrix {where!r}: expected complex numbers, got {values.dtype}. A matrix of "
            "intensities has lost its phases; measure it with a reference."
        )
    if values.ndim not in (2, 3) or values.shape[-2:] != (pixels, channels):
        hint = "Transpose it." if values.shape[-2:] == (channels, pixels) else "Change the sizes."
        raise DataError(
            f"matrix {where!r}: expected shape (pixels, channels) = ({pixels}, {channels}), or "
            f"(patterns, {pixels}, {channels}), got {values.shape}. {hint}"
        )
    wide = values.astype(np.complex128)
    bad = int((~np.isfinite(wide)).sum())
    if bad:
        raise DataError(
            f"matrix {where!r}: {bad} of {wide.size} entries are not finite. Measure those pixels "
            "again, or leave them out."
        )
    power = float(np.mean(wide.real**2 + wide.imag**2)) if wide.size else 0.0
    if not 0 < power < math.inf:
        raise DataError(f"matrix {where!r}: mean |t|^2 is {power}, expected above 0. Is it empty?")
    if normalise:
        wide = wide / math.sqrt(power * channels)
    return torch.from_numpy(wide.astype(np.complex64))


def _npy(path: Path, name: str | None) -> np.ndarray:  # noqa: ARG001
    return np.asarray(np.load(path, allow_pickle=False))


def _npz(path: Path, name: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as held:
        if not isinstance(held, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive")
        return np.asarray(held[_the_one(path, name, list(held.files))])


def _netcdf(path: Path, name: str | None) -> np.ndarray:
    # Imported here: opening a data set pulls in half of xarray.
    import xarray

    with xarray.open_dataset(path, engine="h5netcdf") as held:
        names = [str(n) for n in held.data_vars]
        split = [n.removesuffix("_real") for n in names if n.endswith("_real")]
        split = [n for n in split if f"{n}_imag" in names]
        whole = [n for n in names if n.removesuffix("_real").removesuffix("_imag") not in split]
        chosen = _the_one(path, name, whole + split)
        if chosen in split:
            real, imag = (np.asarray(held[f"{chosen}_{part}"].values) for part in ("real", "imag"))
            if real.shape != imag.shape:
                raise ValueError(f"{chosen}_real {real.shape}, {chosen}_imag {imag.shape}")
            return real + 1j * imag
        return np.asarray(held[chosen].values)


def _the_one(path: Path, name: str | None, names: list[str]) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return str(name)
    asked = "several arrays and no name" if name is None else f"no array {name!r}"
    raise DataError(f"matrix {str(path)!r}: {asked}. {nearest(str(name), names)}")


READERS: Mapping[str, Callable[[Path, str | None], np.ndarray]] = MappingProxyType(
    {".npy": _npy, ".npz": _npz, ".nc": _netcdf, ".h5": _netcdf}
)
"""How each kind of file is read."""
