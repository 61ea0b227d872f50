"""What is done to training images before they are shown: the main regulariser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twin.errors import ConfigError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of images in [0, 1], the same law for every method.

    shift_px: whole-pixel shifts in both directions, filled with black.
    noise: r.m.s. of added Gaussian noise, clipped to [0, 1]. dropout: the
    probability that a pixel is shown black.
    """

    shift_px: int = 0
    noise: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.shift_px < 0 or self.noise < 0 or not 0 <= self.dropout < 1:
            raise ConfigError(f"augment: out of range: {self}.")

    @property
    def is_off(self) -> bool:
        return self.shift_px == 0 and self.noise == 0 and self.dropout == 0

    def __call__(self, images: Tensor, shape: tuple[int, ...], key: Key) -> Tensor:
        """A changed copy of images (n, pixels) of the given (rows, columns)."""
        if self.is_off:
            return images
        generator = key.torch()
        if self.shift_px:
            images = self._shifted(images, shape, generator)
        if self.noise:
            noise = torch.randn(images.shape, generator=generator) * self.noise
            images = (images + noise).clamp_(0.0, 1.0)
        if self.dropout:
            kept = torch.rand(images.shape, generator=generator) >= self.dropout
            images = images * kept
        return images

    def _shifted(
        self, images: Tensor, shape: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        if len(shape) != 2:
            raise ConfigError(
                f"augment.shift_px = {self.shift_px} needs images of (rows, columns), "
                f"but this data set has shape {shape}. Set it to 0."
            )
        s, (rows, columns) = self.shift_px, shape
        padded = torch.nn.functional.pad(images.view(-1, rows, columns), (s, s, s, s))
        shifts = torch.randint(0, 2 * s + 1, (len(images), 2), generator=generator)
        r = (shifts[:, :1] + torch.arange(rows))[:, :, None]
        c = (shifts[:, 1:] + torch.arange(columns))[:, None, :]
        which = torch.arange(len(images))[:, None, None]
        return padded[which, r, c].reshape(len(images), -1)
