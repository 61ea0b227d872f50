"""From states and features to drives: injective, within the range of a port."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twin.backend import Port
from twin.errors import ConfigError
from twin.key import Key


@dataclass(frozen=True)
class StateScale:
    """scaled = (state - centre) / width, each (state_size,), width > 0."""

    centre: Tensor
    width: Tensor

    def __post_init__(self) -> None:
        if self.centre.shape != self.width.shape or not bool((self.width > 0).all()):
            raise ConfigError(
                f"state scale: expected as many widths > 0 as centres, got "
                f"{self.width.tolist()} for {self.centre.tolist()}."
            )

    @staticmethod
    def of(states: Tensor) -> StateScale:
        """Mean and standard deviation of states (n, state_size) once seen."""
        return StateScale(states.mean(0), states.std(0).clamp_min(1e-3))

    def __call__(self, states: Tensor) -> Tensor:
        return (states - self.centre) / self.width


class PhaseEncoding:
    """drive = logistic(2 (x P + b)): a fixed random view of a scaled state x.

    P: (state_size, pixels) and b: (pixels,), N(0, 1) from the key. On a phase
    modulator 0 to 1 stands for 0 to pi, on which the light is injective (on
    -pi to pi it is not). P has more columns than rows: no state is lost but by
    the modulator's levels and far outside the scale.
    """

    def __init__(self, state_size: int, pixels: int, *, key: Key) -> None:
        if pixels < state_size:
            raise ConfigError(
                f"encoding: {pixels} macropixels cannot tell {state_size} state variables apart; "
                f"give the first unit at least {state_size} inputs."
            )
        generator = key.torch()
        self.projection = torch.randn((state_size, pixels), generator=generator)
        self.bias = torch.randn(pixels, generator=generator)

    def __call__(self, scaled: Tensor) -> Tensor:
        """The drive (n, pixels) in (0, 1) of scaled states (n, state_size)."""
        return torch.addmm(self.bias, scaled, self.projection).mul_(2.0).sigmoid_()


def relative(features: Tensor) -> Tensor:
    """The drive in [0, 1) of features (n, width) >= 0: u / (1 + u), u = z / r.m.s.(z).

    Per sample, so that a unit that learns larger features does not drive the
    next one differently. Injective but for that common factor.
    """
    rms = features.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)
    return features / (features + rms)


def on_port(drive: Tensor, port: Port) -> Tensor:
    """A drive in [0, 1] stretched over the range of `port`."""
    if port.low == 0.0 and port.high == 1.0:
        return drive
    return drive * (port.high - port.low) + port.low
