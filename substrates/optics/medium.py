"""Scattering media: from the light of the modulator to fields on the camera.

A field is dimensionless; its mean |field|^2 over media is 1 for light of unit
mean power, whatever the sizes.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from twin.key import Key


class Medium(Protocol):
    """Anything linear that light goes through, possibly changing in time.

    static: fields do not depend on time, so a repeated frame may be reused.
    """

    @property
    def static(self) -> bool: ...

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        """Fields on the camera, (batch, pixels), for light (batch, channels).

        Row b passes the medium at clock_s + b * frame_s, device seconds.
        """
        ...


class GaussianMedium:
    """Independent complex Gaussian transmission coefficients, CN(0, 1 / channels).

    Right for a sub-block of a large transmission matrix: one polarisation, a
    limited aperture, pixels on different speckle grains (Popoff et al.,
    arXiv 0910.5436). Then the speckle has contrast 1 and exponential
    intensities, up to terms of order 1 / channels.
    """

    static = True

    def __init__(
        self, channels: int, pixels: int, key: Key, device: torch.device | str = "cpu"
    ) -> None:
        self.matrix = gaussian_matrix(pixels, channels, key).to(device)

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:  # noqa: ARG002
        # Stored by pixel: the product is 6 % faster than stored by channel.
        return light @ self.matrix.t()


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
