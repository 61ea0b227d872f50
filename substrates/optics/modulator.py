"""Phase modulators: from a drive in [0, 1] to light of unit modulus.

Phases in rad. The encoding is injective: no two levels give the same light.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from substrates.noise import standard_normal
from twin.errors import ConfigError
from twin.key import Key

TOP_RAD = math.pi
"""Phase of a drive of 1. A full turn would give 0 and 1 the same light."""


class PhaseModulator:
    """A liquid-crystal modulator with evenly spaced phases on [0, pi].

    inputs: macropixels. levels: phases it can show. key: of the device, fixes
    which macropixels die first.
    """

    def __init__(
        self, inputs: int, levels: int, key: Key, device: torch.device | str = "cpu"
    ) -> None:
        phases = TOP_RAD * torch.arange(levels, dtype=torch.float64) / (levels - 1)
        require_injective(phases)
        self._levels = levels
        self._light = torch.polar(torch.ones_like(phases), phases).to(torch.complex64).to(device)
        self._rank = torch.rand(inputs, generator=key.child("dead").torch()).to(device)

    def encode(self, drive: Tensor) -> Tensor:
        """Level of each macropixel, (batch, inputs), int64; drive in [0, 1]."""
        return (drive * (self._levels - 1)).round().to(torch.int64)

    def light(self, drive: Tensor, dead_fraction: float = 0.0) -> Tensor:
        """Field behind the modulator, (batch, inputs), complex64, modulus 1.

        The dead macropixels (phase 0) of a small fraction are among those of
        every larger one.
        """
        levels = self.encode(drive)
        if dead_fraction > 0:
            levels = levels.masked_fill(self._rank < dead_fraction, 0)
        # index_select is three times as fast as indexing with a matrix.
        return self._light.index_select(0, levels.flatten()).view(levels.shape)


def flickered(light: Tensor, rms_rad: float, key: Key, first_sample: int) -> Tensor:
    """`light` with independent Gaussian phase jitter per macropixel and frame.

    light: (batch, inputs), complex64. The speckle of a frame then correlates
    with that of steady light as exp(-rms_rad ** 2).
    """
    if rms_rad == 0:
        return light
    batch, inputs = light.shape
    jitter = standard_normal(key, first_sample, batch, (inputs,), device=light.device)
    jitter *= rms_rad
    return light * torch.complex(jitter.cos(), jitter.sin())


def require_injective(phases_rad: Tensor) -> None:
    """Refuse a table of phases, (levels,), that wraps onto itself.

    On the circle no two levels may be nearer than half the smallest step
    between neighbours in the table, nor than 1e-6 rad (float32). ConfigError.
    """
    phases = phases_rad.to(torch.float64)
    turned = phases.remainder(2 * math.pi).sort().values
    gaps = torch.cat([turned.diff(), turned[:1] + 2 * math.pi - turned[-1:]])
    allowed = max(1e-6, phases.diff().abs().min().item() / 2)
    if gaps.min().item() < allowed:
        raise ConfigError(
            f"modulator: two of {len(phases)} levels show the same light (phases within "
            f"{allowed:.2g} rad modulo 2 pi), so that drives far apart could not be told apart. "
            "Spread the phases over [0, pi], or at least over less than a full turn."
        )
