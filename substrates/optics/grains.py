"""Speckle grains: how the fields of neighbouring camera pixels are correlated.

Lengths in camera pixels. A camera is a rectangle of (rows, columns) pixels,
numbered row by row; one row is a line of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.fft
import scipy.special
import torch
from torch import Tensor

from substrates.optics.medium import White

Kernel = Literal["airy", "gaussian"]
MARGIN_GRAINS = 8
"""Grains by which the periodic grid outgrows the camera, so that opposite
edges stay strangers: their field correlation is below 0.02 (airy)."""
CHANNELS_AT_ONCE = 64


def field_correlation(distance: np.ndarray, grain: float, kernel: Kernel) -> np.ndarray:
    """Degree of coherence mu of two points `distance` pixels apart; intensities: mu^2.

    airy: 2 J1(x) / x with x = pi distance / grain, behind a round aperture of
    diameter D at distance z with grain = wavelength z / D (first zero at 1.22
    grains). gaussian: exp(-(pi distance / grain)^2 / 8), the same curvature.
    """
    x = np.pi * np.asarray(distance, np.float64) / grain
    if kernel == "gaussian":
        return np.exp(-(x**2) / 8)
    return np.where(x == 0, 1.0, 2 * scipy.special.j1(x) / np.where(x == 0, 1.0, x))


@dataclass(frozen=True)
class Grains:
    """Correlated pixels: `grain` pixels per speckle grain on `camera` pixels.

    points: samples of the field along each side of a pixel whose intensities
    the pixel adds up; they count as patterns. 1 takes the field at its centre.
    """

    camera: tuple[int, int]
    grain: float
    kernel: Kernel = "airy"
    points: int = 1

    @property
    def patterns(self) -> int:
        """Samples of the field in a pixel: points per side that has a length."""
        return math.prod(self._fine) // math.prod(self.camera)

    @property
    def _fine(self) -> tuple[int, int]:
        """Samples of the field along both axes; a line of pixels has no height."""
        rows, columns = self.camera
        return (rows if rows == 1 else rows * self.points), columns * self.points

    def _grid(self) -> tuple[int, int]:
        margin = math.ceil(MARGIN_GRAINS * self.grain * self.points)
        sides = (1 if n == 1 else scipy.fft.next_fast_len(n + margin) for n in self._fine)
        rows, columns = sides
        return rows, columns

    @cached_property
    def _power(self) -> np.ndarray:
        """Power spectrum on the periodic grid, mean 1."""
        rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in self._grid())
        distance = np.hypot(rows[:, None], columns[None]) / self.points
        power = scipy.fft.fft2(field_correlation(distance, self.grain, self.kernel)).real
        # The slow tail of an Airy pattern, cut off, leaves small negative powers.
        power = power.clip(min=0)
        return power / power.mean()

    def realised(self) -> np.ndarray:
        """Field correlation of the matrices drawn, by row and column offset in samples."""
        rows, columns = self._fine
        return scipy.fft.ifft2(self._power).real[:rows, :columns]

    def draw(self, channels: int, white: White) -> Tensor:
        """A matrix (pixels, channels) or (patterns, pixels, channels) of these grains.

        Stationary Gaussian fields along the camera, independent between
        channels: exact up to the clipped tail (below 0.03 in field correlation).
        """
        grid, (rows, columns) = self._grid(), self._fine
        out = None
        root = torch.from_numpy(np.sqrt(self._power)).to(torch.float32)
        for start in range(0, channels, CHANNELS_AT_ONCE):
            count = min(CHANNELS_AT_ONCE, channels - start)
            noise = white((count, *grid), math.sqrt(1 / channels))
            field = torch.fft.ifft2(torch.fft.fft2(noise) * root.to(noise.device))[
                :, :rows, :columns
            ]
            if out is None:
                out = field.new_empty((rows * columns, channels))
            out[:, start : start + count] = field.reshape(count, -1).t()
        assert out is not None
        return self._by_pixel(out)

    def _by_pixel(self, fine: Tensor) -> Tensor:
        """Samples (rows * columns, channels) sorted by their place in a pixel."""
        if self.points == 1:
            return fine
        (rows, columns), side = self.camera, self.points
        high = 1 if rows == 1 else side
        parts = fine.view(rows, high, columns, side, -1).permute(1, 3, 0, 2, 4)
        return parts.reshape(high * side, rows * columns, -1)

    def intensity_correlation(self) -> np.ndarray:
        """Correlation of the intensities of two pixels, by row and column offset.

        (rows, columns). Signed offsets of samples inside the two pixels are
        averaged over: sum |mu|^2, divided by its value for one pixel.
        """
        squared = scipy.fft.ifft2(self._power).real ** 2
        high = 1 if self.camera[0] == 1 else self.points
        covariance = _smeared(_smeared(squared, high, 0), self.points, 1)
        covariance = covariance[::high, :: self.points][: self.camera[0], : self.camera[1]]
        return covariance / covariance[0, 0]

    def contrast(self) -> float:
        """Standard deviation over mean of the intensity; 1 for points = 1."""
        squared = scipy.fft.ifft2(self._power).real ** 2
        high = 1 if self.camera[0] == 1 else self.points
        return math.sqrt(_smeared(_smeared(squared, high, 0), self.points, 1)[0, 0])

    def effective_outputs(self) -> float:
        """Independent outputs that the pixels are worth: (tr C)^2 / tr C^2.

        C: covariance of the intensities of all pixels.
        """
        rows, columns = self.camera
        each = self.intensity_correlation() ** 2
        # Offset (i, j) occurs (rows - i)(columns - j) times, both signs of each.
        down = np.arange(rows, 0, -1.0) * np.where(np.arange(rows) > 0, 2, 1)
        across = np.arange(columns, 0, -1.0) * np.where(np.arange(columns) > 0, 2, 1)
        return (rows * columns) ** 2 / (down[:, None] * across[None] * each).sum()


def _smeared(values: np.ndarray, points: int, axis: int) -> np.ndarray:
    """Mean of `values` over the offsets between two samples of two pixels."""
    shifts = range(-points + 1, points)
    parts = [np.roll(values, -s, axis) * (points - abs(s)) for s in shifts]
    return np.sum(parts, 0) / points**2


def effective_outputs(intensity: Tensor) -> float:
    """Independent outputs that measured pixels are worth: (tr C)^2 / tr C^2.

    intensity: (samples, pixels), independent samples. The squares come from
    pairs of different samples, so that few samples carry no bias beyond
    outputs / samples^2; relative error near 2 / samples * sqrt(outputs).
    """
    centred = intensity.to(torch.float64) - intensity.to(torch.float64).mean(0)
    n = len(centred)
    gram = centred @ centred.t()
    own = gram.diagonal().sum().item()
    pairs = (gram.square().sum() - gram.diagonal().square().sum()).item()
    return (own / (n - 1)) ** 2 / (pairs / (n * (n - 1)))
