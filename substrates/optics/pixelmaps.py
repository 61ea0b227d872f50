"""Fixed patterns of a sensor's pixels, and the way from sensor to frame.

Maps are drawn once from the device's key, or read from a file of measured ones.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from substrates.optics.sensor import SensorTable
from twin.errors import DataError
from twin.key import Key

NAMES = ("response", "dsnu_electrons", "read_noise_ratio", "dark_ratio")
"""Arrays of a file of maps, one number per pixel of the sensor. Others whose
name ends in _error (their uncertainty) may lie beside them."""


@dataclass(frozen=True)
class PixelMaps:
    """What distinguishes the pixels of a sensor, each (sensor pixels,) float32 or None.

    response: to light, mean 1. dsnu_electrons: own black level. read_noise_ratio:
    over read_noise_electrons. dark_ratio: of measured maps, over the common dark
    current. hot, dead: ranks in [0, 1); the pixels below the fraction in force
    are faulty, so that few are among many.
    """

    response: Tensor | None
    dsnu_electrons: Tensor | None
    read_noise_ratio: Tensor | None
    dark_ratio: Tensor | None
    hot: Tensor
    dead: Tensor

    @staticmethod
    def of(table: SensorTable, pixels: int, key: Key, device: torch.device | str) -> PixelMaps:
        """The maps of a sensor of `pixels` pixels, made on the CPU, kept on `device`."""
        made = measured(Path(table.maps), pixels) if table.maps else drawn(table, pixels, key)
        maps = {name: values.to(device) for name, values in made.items()}

        def rank(name: str) -> Tensor:
            return torch.rand(pixels, generator=key.child(name).torch()).to(device)

        return PixelMaps(
            response=maps.get("response"),
            dsnu_electrons=maps.get("dsnu_electrons"),
            read_noise_ratio=maps.get("read_noise_ratio"),
            dark_ratio=maps.get("dark_ratio"),
            hot=rank("hot"),
            dead=rank("dead"),
        )


def drawn(table: SensorTable, pixels: int, key: Key) -> dict[str, Tensor]:
    """The maps that `table` asks for; those without spread are left out."""

    def normal(name: str) -> Tensor:
        return torch.randn(pixels, generator=key.child(name).torch())

    made = {}
    if table.prnu > 0:
        # A pixel cannot respond with negative charge.
        made["response"] = normal("response").mul_(table.prnu).add_(1).clamp_(min=0)
    if table.dsnu_electrons > 0:
        made["dsnu_electrons"] = normal("dark offset").mul_(table.dsnu_electrons)
    if table.read_noise_spread > 0 or table.read_noise_tail_fraction > 0:
        made["read_noise_ratio"] = _read_noise(table, normal("read noise"), key)
    return made


def _read_noise(table: SensorTable, normal: Tensor, key: Key) -> Tensor:
    """Log-normal with mean square 1; some pixels have an exponential excess on top."""
    spread = table.read_noise_spread
    body = normal.mul_(spread).sub_(spread**2).exp_()
    rank = torch.rand(body.shape, generator=key.child("read tail").torch())
    excess = torch.empty_like(body).exponential_(generator=key.child("read excess").torch())
    tail = (rank < table.read_noise_tail_fraction) * table.read_noise_tail_ratio
    return body.mul_(excess.mul_(tail).add_(1))


def measured(path: Path, pixels: int) -> dict[str, Tensor]:
    """Maps from a .npz file with any of NAMES; DataError if they do not fit the sensor."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name], np.float32).ravel() for name in file.files}
            found = {n: values for n, values in found.items() if not n.endswith("_error")}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
        raise DataError(
            f"sensor.maps: {path} cannot be read as a .npz file of maps ({error}). "
            f"Expected arrays named {', '.join(NAMES)}."
        ) from None
    unknown = sorted(set(found) - set(NAMES))
    if unknown:
        raise DataError(
            f"sensor.maps: {path} has an unknown array {unknown[0]!r}. Known: {', '.join(NAMES)}."
        )
    _require_sound(path, found, pixels)
    return {name: torch.from_numpy(values) for name, values in found.items()}


def _require_sound(path: Path, found: Mapping[str, np.ndarray], pixels: int) -> None:
    for name, values in found.items():
        low = -np.inf if name == "dsnu_electrons" else 0.0
        if values.size != pixels:
            raise DataError(
                f"sensor.maps: {name} in {path} has {values.size} pixels, the sensor has {pixels}."
                " Set sensor.shape to that of the measured frames."
            )
        if not np.isfinite(values).all() or values.min() < low:
            raise DataError(
                f"sensor.maps: {name} in {path} has values that are not finite or below {low:g}. "
                "Measure the maps again."
            )


def moved(picture: Tensor, rows_px: float, columns_px: float) -> Tensor:
    """The picture (..., rows, columns) displaced by a fraction of pixels, bilinear.

    out[r, c] = in[r - rows_px, c - columns_px]; beyond the edge the edge goes
    on. Bilinear sampling averages neighbours: between pixels it lowers the
    contrast of speckle, as a real shift of finer grains would not.
    """
    for dim, shift in ((-2, rows_px), (-1, columns_px)):
        if shift == 0:
            continue
        size = picture.shape[dim]
        place = torch.arange(size, dtype=torch.float64, device=picture.device) - shift
        low = place.floor()
        part = (place - low).to(picture.dtype)
        first = picture.index_select(dim, low.long().clamp(0, size - 1))
        second = picture.index_select(dim, (low.long() + 1).clamp(0, size - 1))
        picture = torch.lerp(first, second, part[:, None] if dim == -2 else part)
    return picture


def cropped(values: Tensor, table: SensorTable) -> Tensor:
    """Sensor values (..., sensor pixels) of the region read, (..., rows, columns)."""
    top, left, rows, columns = table.region
    return values.unflatten(-1, table.shape)[..., top : top + rows, left : left + columns]


def binned(values: Tensor, table: SensorTable) -> Tensor:
    """Sums of charge over the groups of the region, (..., pixels read)."""
    region = cropped(values, table)
    if table.binning > 1:
        groups = region.unflatten(-1, (-1, table.binning)).unflatten(-3, (-1, table.binning))
        region = groups.sum((-1, -3))
    return region.flatten(-2)


def cornered(values: Tensor, table: SensorTable) -> Tensor:
    """Values of the first pixel of every group: a group is read through one amplifier."""
    step = table.binning
    return cropped(values, table)[..., ::step, ::step].flatten(-2)


def region_rank(pixels: int, shape: tuple[int, int] | None, key: Key) -> Tensor:
    """Rank in [0, 1) of every read pixel by its distance from a drawn centre, (pixels,)."""
    rows, columns = shape or (1, pixels)
    at = torch.rand(2, generator=key.torch(), dtype=torch.float64)
    down = torch.arange(rows) - (at[0] * rows).floor()
    across = torch.arange(columns) - (at[1] * columns).floor()
    distance = (down[:, None].square() + across.square()).flatten()
    rank = torch.empty(pixels, dtype=torch.float64)
    rank[distance.argsort(stable=True)] = torch.arange(pixels, dtype=torch.float64)
    return rank / pixels
