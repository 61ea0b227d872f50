"""A backend as a laboratory sees it: patterns in, intensities out, through the fence.

Patterns are fractions: 0 is the lowest drive, 1 a phase pi above it (the
highest drive where the port is not a phase). Intensities are dimensionless.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.linalg import hadamard
from torch import Tensor

from twin.errors import ConfigError
from twin.fence import Fence, Measured
from twin.key import Key

Pairs = tuple[Tensor, Tensor]
"""Two sets of frames (batch, pixels) of the same patterns."""

PHASE_ERROR_RAD = 0.05
"""How far the nearest level may be from a phase that is asked for."""


@dataclass(frozen=True)
class Rig:
    """Frames of one backend.

    dark: what a dark pixel reads, in units of the port's full scale; it is
    subtracted. key: patterns and noise come from it. live: pixels that are
    used, all if None.
    """

    fence: Fence
    key: Key
    dark: float = 0.0
    live: Tensor | None = None

    @property
    def inputs(self) -> int:
        """Macropixels."""
        return math.prod(self.fence.drive_port.shape)

    @property
    def pixels(self) -> int:
        """Camera pixels, whether live or not."""
        return math.prod(self.fence.reading_port.shape)

    @property
    def reach_rad(self) -> float | None:
        """Phase of the highest drive above the lowest, None if it is no phase."""
        port = self.fence.drive_port
        return (port.high - port.low) * port.full_scale if port.unit == "rad" else None

    @property
    def steps_phases(self) -> bool:
        """Whether the drive can show the phases 0, pi / 2 and pi."""
        reach = self.reach_rad
        if reach is None or reach < math.pi - PHASE_ERROR_RAD:
            return False
        wanted = self._drive(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
        port = self.fence.drive_port
        off = (port.on_grid(wanted) - wanted).abs().max().item()
        return off * port.full_scale <= PHASE_ERROR_RAD

    def only(self, live: Tensor) -> Rig:
        """The same rig, of which the pixels live (pixels,) bool are used."""
        if live.sum() < 2:
            raise ConfigError(
                f"{self.fence.name}: {int(live.sum())} of {len(live)} pixels answer the drive, "
                "2 are needed. Is the light on, the exposure right?"
            )
        return replace(self, live=live)

    def frames(self, patterns: Tensor, stage: str) -> Tensor:
        """Intensities (batch, live pixels), float64, of patterns (batch, inputs)."""
        return self.taken(patterns, stage)[0]

    def taken(self, patterns: Tensor, stage: str) -> tuple[Tensor, Measured]:
        """The same, and the measurement it is from."""
        port = self.fence.drive_port
        drive = self._drive(patterns).to(torch.float32).clamp_(port.low, port.high)
        drive = drive.view(len(patterns), *port.shape)
        key = self.key.child("frames", stage)
        measured = self.fence.forward(drive, key=key, phase="certify")
        flat = measured.values.reshape(len(patterns), self.pixels).to(torch.float64) - self.dark
        return (flat if self.live is None else flat[:, self.live]), measured

    def pairs(self, patterns: Tensor, stage: str) -> Pairs:
        """Two frames of each pattern, one right after the other.

        Their covariance holds what the pattern made, not what the camera added.
        """
        return self.pairs_taken(patterns, stage)[0]

    def pairs_taken(self, patterns: Tensor, stage: str) -> tuple[Pairs, Measured]:
        """The same, and the measurement they are from."""
        both, measured = self.taken(patterns.repeat_interleave(2, 0), stage)
        return (both[0::2], both[1::2]), measured

    def random(self, n: int, stage: str) -> Tensor:
        """Patterns (n, inputs) of 0 and 1: behind them light has no mean field."""
        generator = self.key.child("patterns", stage).torch()
        return torch.randint(2, (n, self.inputs), generator=generator).to(torch.float64)

    def smooth(self, n: int) -> Tensor:
        """The n flattest patterns, (n, inputs): one value, then a few wide stripes.

        Orthogonal to each other, so that behind an i.i.d. medium their speckle
        is independent; a mean field that a medium leaves is largest here.
        """
        order = 1 << max(0, math.ceil(math.log2(n)))
        stripes = torch.arange(self.inputs) * order // self.inputs
        signs = torch.from_numpy(hadamard(order)).to(torch.float64)
        turns = signs.diff(dim=1).abs().sum(1)
        return (1 - signs[turns.argsort(stable=True)][:n, stripes]) / 2

    def _drive(self, patterns: Tensor) -> Tensor:
        port, reach = self.fence.drive_port, self.reach_rad
        top = 1.0 if reach is None else min(1.0, math.pi / reach)
        return port.low + (port.high - port.low) * top * patterns


def side(n: int) -> int | None:
    """The side of a square of n, None if n is not a square."""
    root = math.isqrt(n)
    return root if root * root == n else None


def as_image(flat: Tensor) -> Tensor:
    """(..., n) as (..., side, side), or (..., 1, n) where n is no square."""
    n = flat.shape[-1]
    return flat.view(*flat.shape[:-1], side(n) or 1, side(n) or n)
