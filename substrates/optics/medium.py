"""Scattering media: from the light of the modulator to fields on the camera.

A field is dimensionless; its mean |field|^2 over media is 1 for light of unit
mean power, whatever the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from twin.key import Key


class White(Protocol):
    """A source of complex noise of independent entries, for drawing a matrix."""

    def __call__(self, shape: tuple[int, ...], rms: float) -> Tensor:
        """complex64 of `shape`, mean |entry|^2 = rms^2, mean entry^2 = 0."""
        ...


Redraw = Callable[[White], Tensor]
"""Another matrix of a medium's law, linear in the white noise it asks for."""


class Medium(Protocol):
    """Anything linear that light goes through, possibly changing in time.

    static: fields do not depend on time, so a repeated frame may be reused.

    A medium may also have `matrix_at(time_s)`, the transmission matrix at a
    device time, (pixels, channels) or (patterns, pixels, channels).
    """

    @property
    def static(self) -> bool: ...

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        """Fields on the camera, (batch, pixels), for light (batch, channels).

        Row b passes the medium at clock_s + b * frame_s, device seconds. A
        medium of several patterns that do not interfere (polarisations,
        coherence cells, points inside a pixel) gives (batch, patterns, pixels).
        """
        ...


class MatrixMedium:
    """A medium that is one transmission matrix, or one per pattern.

    matrix: (pixels, channels) or (patterns, pixels, channels), complex64,
    mean |t|^2 = 1 / channels. redraw: another matrix of the same law, for
    drift; by default independent Gaussian entries, (of a measured matrix or
    one of prescribed singular values only the mean power is kept).
    """

    static = True

    def __init__(self, matrix: Tensor, redraw: Redraw | None = None) -> None:
        self.matrix = matrix
        self._redraw = redraw

    @property
    def channels(self) -> int:
        """Columns of the matrix: values of the light."""
        return self.matrix.shape[-1]

    @property
    def patterns(self) -> int:
        """Patterns whose intensities add up; 1 for coherent, polarised light."""
        return self.matrix.shape[0] if self.matrix.ndim == 3 else 1

    def redraw(self, white: White) -> Tensor:
        """A matrix of the same law, shape of `matrix`, on the device of the noise."""
        if self._redraw is None:
            return white(tuple(self.matrix.shape), math.sqrt(1 / self.channels))
        return self._redraw(white)

    def matrix_at(self, time_s: float) -> Tensor:  # noqa: ARG002
        """The matrix, at any time: not to be written to."""
        return self.matrix

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:  # noqa: ARG002
        return transmitted(light, self.matrix)


class GaussianMedium(MatrixMedium):
    """Independent complex Gaussian transmission coefficients, CN(0, 1 / channels).

    Right for a sub-block of a large transmission matrix: one polarisation, a
    limited aperture, pixels on different speckle grains (Popoff et al.,
    arXiv 0910.5436). Then the speckle has contrast 1 and exponential
    intensities, up to terms of order 1 / channels.
    """

    def __init__(
        self, channels: int, pixels: int, key: Key, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(gaussian_matrix(pixels, channels, key).to(device))


def transmitted(light: Tensor, matrix: Tensor) -> Tensor:
    """Fields (batch, pixels) or (batch, patterns, pixels) of light (batch, channels)."""
    # Stored by pixel: the product is 6 % faster than stored by channel.
    if matrix.ndim == 2:
        return light @ matrix.t()
    stacked = light @ matrix.flatten(0, 1).t()
    return stacked.view(len(light), *matrix.shape[:2])


def summed_intensity(field: Tensor) -> Tensor:
    """|field|^2 averaged over patterns, (batch, pixels), float32, mean 1 over media.

    field: (batch, pixels) or (batch, patterns, pixels), from `transmit`. The
    contrast behind M independent patterns is 1 / sqrt(M) (JOSA 66, 1145).
    """
    parts = torch.view_as_real(field)
    # Squared in one run over memory: half the time of two strided ones.
    squares = parts * parts
    power = squares[..., 0] + squares[..., 1]
    return power if field.ndim == 2 else power.mean(1)


def gaussian_matrix(pixels: int, channels: int, key: Key) -> Tensor:
    """(pixels, channels), complex64: both quadratures normal, |t|^2 = 1 / channels."""
    parts = torch.randn((2, pixels, channels), generator=key.torch())
    return torch.complex(parts[0], parts[1]) / math.sqrt(2 * channels)


def with_unmodulated(light: Tensor, fraction: float) -> Tensor:
    """`light` with one more channel that carries `fraction` of the power.

    light: (batch, inputs), modulus 1. Returns (batch, inputs + 1) with the
    same total power in expectation behind a medium of inputs + 1 channels.
    """
    inputs = light.shape[-1]
    channels = inputs + 1
    steady = light.new_full((len(light), 1), math.sqrt(fraction * channels))
    return torch.cat([light * math.sqrt((1 - fraction) * channels / inputs), steady], dim=-1)
