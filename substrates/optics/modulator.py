"""Modulators: from a drive in [0, 1] to the light of each macropixel.

Phases in rad. The encoding is injective: no two levels give the same light.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from substrates.noise import standard_normal
from twin.errors import ConfigError
from twin.key import Key

TOP_RAD = math.pi
"""Phase of a drive of 1. A full turn would give 0 and 1 the same light."""


class Modulator(Protocol):
    """Anything that turns a drive into light, level by level.

    real: the light has no imaginary part. settles: a frame also depends on the
    pattern before it; then use `light_in_order` of slm.PhaseSlm.
    """

    real: bool
    settles: bool

    @property
    def levels(self) -> int:
        """How many different states a macropixel has."""
        ...

    @property
    def shown(self) -> Tensor:
        """Field of a settled macropixel at each level, (levels,), complex128, CPU."""
        ...

    def encode(self, drive: Tensor) -> Tensor:
        """Level asked of each macropixel, (batch, inputs), int64; drive in [0, 1]."""
        ...

    def light(self, drive: Tensor, dead_fraction: float = 0.0) -> Tensor:
        """Field behind the modulator, (batch, inputs), complex64."""
        ...


class LevelModulator:
    """Each macropixel shows one of a few fields, independently of the others.

    shown: (levels,), complex128, level 0 first. inputs: macropixels. key: of the
    device, fixes which macropixels die or stick first, and at which level.
    threshold: of two levels, the drive at which the upper begins; by default
    the drive is rounded to the nearest of evenly spaced levels.
    """

    settles = False

    def __init__(
        self,
        shown: Tensor,
        inputs: int,
        key: Key,
        device: torch.device | str = "cpu",
        *,
        threshold: float | None = None,
        stuck_fraction: float = 0.0,
    ) -> None:
        self.shown = shown
        self.real = bool((shown.imag == 0).all())
        self._threshold = threshold
        self._stuck_fraction = stuck_fraction
        self._light = shown.to(torch.complex64).to(device)
        self._dead_rank = torch.rand(inputs, generator=key.child("dead").torch()).to(device)
        self._stuck_rank = torch.rand(inputs, generator=key.child("stuck").torch()).to(device)
        stuck = torch.randint(len(shown), (inputs,), generator=key.child("stuck level").torch())
        self._stuck = stuck.to(device)

    @property
    def levels(self) -> int:
        return len(self.shown)

    def encode(self, drive: Tensor) -> Tensor:
        """Level asked of each macropixel, (batch, inputs), int64; drive in [0, 1]."""
        if self._threshold is not None:
            return (drive >= self._threshold).to(torch.int64)
        return (drive * (self.levels - 1)).round().to(torch.int64)

    def held(
        self, drive: Tensor, dead_fraction: float = 0.0, stuck_fraction: float | None = None
    ) -> Tensor:
        """Level that each macropixel holds, (batch, inputs), int64, with its faults.

        Dead ones stay at level 0, stuck ones at a level drawn once, uniformly;
        a dead one is not also stuck. Those of a small fraction are among those
        of every larger one. stuck_fraction: as configured by default.
        """
        levels = self.encode(drive)
        stuck = self._stuck_fraction if stuck_fraction is None else stuck_fraction
        if stuck > 0:
            levels = torch.where(self._stuck_rank < stuck, self._stuck, levels)
        if dead_fraction > 0:
            levels = levels.masked_fill(self._dead_rank < dead_fraction, 0)
        return levels

    def light(
        self, drive: Tensor, dead_fraction: float = 0.0, stuck_fraction: float | None = None
    ) -> Tensor:
        """Field behind the modulator, (batch, inputs), complex64."""
        levels = self.held(drive, dead_fraction, stuck_fraction)
        # index_select is three times as fast as indexing with a matrix.
        return self._light.index_select(0, levels.flatten()).view(levels.shape)

    def amplitude(
        self, drive: Tensor, dead_fraction: float = 0.0, stuck_fraction: float | None = None
    ) -> Tensor:
        """Real part of `light`, (batch, inputs), float32; all of it where `real`.

        Behind a medium [Re T, Im T] it takes one real product instead of a complex one.
        """
        levels = self.held(drive, dead_fraction, stuck_fraction)
        return self._light.real.contiguous().index_select(0, levels.flatten()).view(levels.shape)


class PhaseModulator(LevelModulator):
    """An ideal liquid-crystal modulator: evenly spaced phases on [0, pi], modulus 1."""

    def __init__(
        self, inputs: int, levels: int, key: Key, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(phase_light(even_phases(levels)), inputs, key, device)


def even_phases(levels: int) -> Tensor:
    """Phases (levels,) from 0 to pi inclusive, rad, float64."""
    return TOP_RAD * torch.arange(levels, dtype=torch.float64) / (levels - 1)


def phase_light(phases_rad: Tensor) -> Tensor:
    """exp(i phase) of a table of phases (levels,), complex128; ConfigError if it aliases."""
    require_injective(phases_rad)
    return torch.polar(torch.ones_like(phases_rad), phases_rad)


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
    """Refuse a table of phases, (levels,), that wraps or folds onto itself.

    Going through the levels must turn the light one way round the circle, less
    than once. No two levels may be nearer than half the smallest step between
    neighbours in the table, nor than 1e-6 rad (float32). ConfigError.
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
    _require_one_way(phases)


def _require_one_way(phases: Tensor) -> None:
    """Levels may interleave after a full turn without meeting: that aliases too."""
    round_circle = (phases - phases[0]).remainder(2 * math.pi)
    backwards = (phases[0] - phases).remainder(2 * math.pi)
    if not ((round_circle.diff() > 0).all() or (backwards.diff() > 0).all()):
        raise ConfigError(
            f"modulator: the phases of its {len(phases)} levels fold back or pass a full turn "
            f"(they span {phases.min().item():.3g} to {phases.max().item():.3g} rad), so that "
            "drives far apart show nearly the same light. Use fewer levels, a smoother curve or "
            "a table that stays within one turn."
        )
