"""What is done to training images before they are shown: the main regulariser."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twin.errors import ConfigError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of images in [0, 1], the same law for every method.

    shift_px: whole-pixel shifts in both directions, filled with black; with one
    of the next three, any shift up to it. rotate_degrees, zoom, shear: largest turn
    either way, relative change of size and horizontal shear, about the middle,
    bilinear, filled with black. noise: r.m.s. of added Gaussian noise, clipped to
    [0, 1]. dropout: the probability that a pixel is shown black.
    """

    shift_px: int = 0
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    noise: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        below = min(self.shift_px, self.noise, self.rotate_degrees, self.zoom, self.shear) < 0
        if below or not self.dropout < 1 or self.dropout < 0 or self.zoom >= 1:
            raise ConfigError(f"augment: out of range: {self}.")

    @property
    def is_off(self) -> bool:
        return self == Augment()

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated."""
        return self.rotate_degrees > 0 or self.zoom > 0 or self.shear > 0

    def __call__(self, images: Tensor, shape: tuple[int, ...], key: Key) -> Tensor:
        """A changed copy of images (n, pixels) of the given (rows, columns)."""
        if self.is_off:
            return images
        generator = key.torch()
        if self.warps:
            images = self._warped(images, shape, generator)
        elif self.shift_px:
            images = self._shifted(images, shape, generator)
        if self.noise:
            noise = torch.randn(images.shape, generator=generator) * self.noise
            images = (images + noise).clamp_(0.0, 1.0)
        if self.dropout:
            kept = torch.rand(images.shape, generator=generator) >= self.dropout
            images = images * kept
        return images

    def _warped(self, images: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Turned, sheared, resized and shifted: uniform draws of each, per image."""
        _require_picture(shape, "augment.rotate_degrees, zoom and shear need")
        rows, columns = shape
        most = torch.tensor(
            [math.radians(self.rotate_degrees), self.zoom, self.shear, self.shift_px, self.shift_px]
        )
        drawn = torch.rand((len(images), 5), generator=generator) * 2 - 1
        angle, zoom, shear, across, down = (drawn * most).T
        # Maps where a pixel goes to onto where it comes from, in units of half the side.
        cos, sin, size = torch.cos(angle), torch.sin(angle), 1 / (1 + zoom)
        aspect = rows / columns
        maps = torch.stack([
            torch.stack([size * cos, size * (shear * cos - sin) * aspect, across * 2 / columns], 1),
            torch.stack([size * sin / aspect, size * (shear * sin + cos), down * 2 / rows], 1),
        ], 1)  # fmt: skip
        pictures = images.view(-1, 1, rows, columns)
        grid = torch.nn.functional.affine_grid(maps, list(pictures.shape), align_corners=False)
        warped = torch.nn.functional.grid_sample(pictures, grid, align_corners=False)
        return warped.reshape(len(images), -1).clamp_(0.0, 1.0)

    def _shifted(
        self, images: Tensor, shape: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        _require_picture(shape, f"augment.shift_px = {self.shift_px} needs")
        s, (rows, columns) = self.shift_px, shape
        padded = torch.nn.functional.pad(images.view(-1, rows, columns), (s, s, s, s))
        shifts = torch.randint(0, 2 * s + 1, (len(images), 2), generator=generator)
        r = (shifts[:, :1] + torch.arange(rows))[:, :, None]
        c = (shifts[:, 1:] + torch.arange(columns))[:, None, :]
        which = torch.arange(len(images))[:, None, None]
        return padded[which, r, c].reshape(len(images), -1)


def _require_picture(shape: tuple[int, ...], what: str) -> None:
    if len(shape) != 2:
        raise ConfigError(
            f"{what} images of (rows, columns), but this data set has shape {shape}. Set it to 0."
        )
