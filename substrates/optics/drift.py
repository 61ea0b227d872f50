"""Media that change while frames are taken, in physical seconds.

Decorrelation, warm-up, jumps, laser power and pointing are functions of the
device's time and its key alone: nothing is stored, nothing to snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from substrates.optics.driftclock import PRESETS, DriftClock, DriftTable
from substrates.optics.medium import MatrixMedium, Medium, transmitted
from substrates.optics.ornstein import Draw, Path
from substrates.optics.white import sign_noise, white_noise
from twin.errors import ConfigError, DriveError
from twin.key import Key

__all__ = ["PRESETS", "DriftClock", "DriftTable", "Drifting", "drifting", "shifted"]

HOLDS = 4
"""Places between two grid points at which the matrix is made; frames whose
times fall to the same place share it, and one product."""

TIE = 1e-7
"""Moves the borders between places off the round numbers that times of frames
are: the last bit of a time, which depends on how it was added up, decides nothing."""

LATEST = 2.0**52
"""Places from which on float64 no longer tells one from the next."""


class Drifting:
    """A medium that decorrelates, under a laser and a mount that drift.

    At device time 0 it is `medium`; from there each entry of the matrix is a
    complex Ornstein-Uhlenbeck process: T(t) = rho T(0) + sqrt(1 - rho^2) T',
    with T' of the medium's law (independent Gaussian entries where singular
    values are prescribed or a matrix was measured: those statistics decay).

    Frames see the matrix of the nearest of 4 * steps_per_tau places per tau.
    The correlation of two fields is within 0.75 / steps_per_tau of exp(-|t - s| / tau).
    Drift within an exposure is left out: valid for exposures far below tau.
    Keeps log2(32 steps_per_tau) + 3 matrices in memory once it has moved.
    """

    static = False

    def __init__(
        self, medium: MatrixMedium, table: DriftTable, key: Key, camera_rows: int = 1
    ) -> None:
        """key: of the device. camera_rows: of the camera, for pointing; 1 is a line
        of pixels, which sees the shift along itself only."""
        self.table = table
        self._medium = medium
        self._camera_rows = camera_rows
        self._clock = DriftClock(table, key.child("clock"))
        self._path = Path(self._fresh, key.child("matrix"), medium.matrix, table.steps_per_tau)
        self._power = Path(_normal(1), key.child("power"))
        self._pointing = Path(_normal(2), key.child("pointing"))
        self._made: tuple[int, Tensor] = (0, medium.matrix)
        self._between: Tensor | None = None

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        """Fields (batch, pixels) or (batch, patterns, pixels); row b at clock_s + b * frame_s.

        Rows that fall to one place in time share one product. Where every
        frame has a place of its own, each costs about one draw of a matrix.
        """
        times_s = clock_s + frame_s * np.arange(len(light))
        places = self._places(times_s)
        parts = [_product(light[a:b], self._at(int(places[a]))) for a, b in _runs(places)]
        field = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.table.pointing_rms_pixels > 0:
            shift = torch.from_numpy(self.shift_pixels(times_s)).to(light.device, torch.float32)
            field = shifted(field, shift, self._camera_rows)
        if self.table.power_rms > 0:
            root = torch.from_numpy(np.sqrt(self.power(times_s))).to(light.device, torch.float32)
            torch.view_as_real(field).mul_(root.view(-1, *[1] * field.ndim))
        return field

    def matrix_at(self, time_s: float) -> Tensor:
        """The matrix that a frame at `time_s` sees, a copy. Without power and pointing."""
        return self._at(int(self._places(np.array([time_s]))[0])).clone()

    def correlation(self, time_s: float, other_s: float) -> float:
        """Predicted correlation of the field; of the speckle its square."""
        first, second = self._clock.elapsed(np.array([time_s, other_s]))
        return math.exp(-abs(first - second))

    def power(self, times_s: np.ndarray) -> np.ndarray:
        """Power of the laser at rising times, over its mean: log-normal, mean 1."""
        sigma = math.sqrt(math.log1p(self.table.power_rms**2))
        walk = self._power.along(_checked(times_s) / self.table.power_tau_s)[:, 0]
        return np.exp(sigma * walk - sigma**2 / 2)

    def shift_pixels(self, times_s: np.ndarray) -> np.ndarray:
        """Shift of the image at rising times, (n, 2): along rows' and columns' index."""
        walk = self._pointing.along(_checked(times_s) / self.table.pointing_tau_s)
        return self.table.pointing_rms_pixels * walk

    def _places(self, times_s: np.ndarray) -> np.ndarray:
        if not self.table.moves:
            return np.zeros(len(times_s), np.int64)
        fine = self._clock.elapsed(_checked(times_s)) * (self.table.steps_per_tau * HOLDS)
        if not fine.max() < LATEST:
            raise DriveError(
                f"drift: device time {times_s.max():g} s is {fine.max() / HOLDS:.3g} steps of the "
                f"drift, expected fewer than {LATEST / HOLDS:.3g}. Wait less, or lower drift_scale."
            )
        return np.floor(fine + (0.5 + TIE)).astype(np.int64)

    def _at(self, place: int) -> Tensor:
        if self._made[0] != place:
            step, hold = divmod(place, HOLDS)
            if hold and self._between is None:
                self._between = torch.empty_like(self._medium.matrix)
            self._made = (place, self._path.at(step, hold / HOLDS, self._between))
        return self._made[1]

    def _fresh(self, key: Key, scale: float, fine: bool, spare: Tensor | None) -> Tensor:
        # On the CPU wherever the rig is simulated: the same medium everywhere.
        where = self._medium.matrix.device
        source = (sign_noise if fine else white_noise)(key, spare if where.type == "cpu" else None)

        def scaled(shape: tuple[int, ...], rms: float) -> Tensor:
            return source(shape, rms * scale)

        return self._medium.redraw(scaled).to(where)


def drifting(medium: Medium, table: DriftTable, key: Key, camera_rows: int = 1) -> Medium:
    """`medium` as it drifts; itself where the table says that nothing changes.

    Raises ConfigError for a medium without a matrix.
    """
    if table.static:
        return medium
    if not isinstance(medium, MatrixMedium):
        raise ConfigError(
            f"drift: a {type(medium).__name__} has no matrix to drift. Use a medium with one "
            "(kerr_rad = 0), or a static drift."
        )
    return Drifting(medium, table, key, camera_rows)


def shifted(field: Tensor, shift_pixels: Tensor, camera_rows: int = 1) -> Tensor:
    """Fields moved over the camera by a part of a pixel, band-limited and periodic.

    field: (batch, ..., pixels), complex; shift_pixels: (batch, 2), along rows
    and columns (the first is ignored with one row). Keeps the power and the
    statistics of the field. On independent pixels the speckle then correlates
    with the unmoved one as sinc^2 of the shift; with 2 or more pixels per
    grain it is the moved image, but for the edge, where light that leaves
    comes in on the other side.
    """
    image = field.unflatten(-1, (camera_rows, -1))
    rows, columns = (torch.fft.fftfreq(n, device=field.device) for n in image.shape[-2:])
    turns = shift_pixels[:, :1, None] * rows[:, None] * (camera_rows > 1)
    turns = turns + shift_pixels[:, 1:, None] * columns
    phase = torch.polar(torch.ones_like(turns), -2 * math.pi * turns).to(field.dtype)
    phase = phase.view(len(field), *[1] * (image.ndim - 3), *image.shape[-2:])
    return torch.fft.ifft2(torch.fft.fft2(image) * phase).flatten(-2)


def _product(light: Tensor, matrix: Tensor) -> Tensor:
    if len(light) > 1:
        return transmitted(light, matrix)
    # A product with one row takes another route and rounds differently: the
    # same frame would depend on whether its neighbour fell to the same place.
    return transmitted(light.expand(2, -1), matrix)[:1]


def _runs(places: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of equal neighbours: first and one past the last index."""
    edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    return pairwise(edges)


def _normal(count: int) -> Draw:
    def draw(key: Key, rms: float, fine: bool, spare: Tensor | None) -> Tensor:  # noqa: ARG001
        return rms * torch.randn(count, dtype=torch.float64, generator=key.torch())

    return draw


def _checked(times_s: np.ndarray) -> np.ndarray:
    if not (np.isfinite(times_s).all() and (times_s >= 0).all()):
        raise DriveError(f"drift: device times must be finite and >= 0 s, got {times_s.min()}.")
    return times_s
