"""Liquid-crystal phase modulators as they are: curve, table, settling, cross-talk.

Phases in rad, times in s. Two tables are kept apart: the curve, what a grey
value really does, and the driver's table, what it sends because of its belief.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from substrates.optics.modulator import LevelModulator, even_phases
from twin.errors import ConfigError

TURN_RAD = 2 * math.pi


def true_curve(
    greys: int, turn_grey: float | None = None, curve_rad: Sequence[float] = ()
) -> Tensor:
    """Phase of every grey value, (greys,), rad, float64.

    From phases measured at evenly spaced grey values, ends included, or linear
    with 2 pi at turn_grey (by default at `greys`).
    """
    grey = np.arange(greys, dtype=np.float64)
    if curve_rad:
        at = np.linspace(0, greys - 1, len(curve_rad))
        return torch.from_numpy(np.interp(grey, at, np.asarray(curve_rad, np.float64)))
    return torch.from_numpy(grey * (TURN_RAD / (turn_grey or greys)))


def driven_phases(
    curve: Tensor,
    levels: int | None = None,
    table: Sequence[int] = (),
    believed_turn_grey: float | None = None,
) -> Tensor:
    """True phase of each level, (levels,), rad, behind a driver and a curve (greys,).

    Level l asks for pi l / (levels - 1). The driver sends table[l]; or the grey
    value that has this phase on the straight line it believes in; or, without
    either, the grey value nearest in truth, counted from that of grey 0. levels:
    by default as many as different grey values can be sent for.
    """
    greys = _believed_greys(curve, levels, table, believed_turn_grey)
    if int(greys.max()) >= len(curve):
        raise ConfigError(
            f"modulator: the driver sends grey value {int(greys.max())}, but there are only "
            f"{len(curve)} (0 to {len(curve) - 1}). Correct its table or use more bits."
        )
    if greys.unique().numel() < len(greys):
        raise ConfigError(
            f"modulator: only {greys.unique().numel()} different grey values are sent for "
            f"{len(greys)} levels, so that two drives show the same light. Leave levels out, or "
            "use a modulator whose curve rises through pi in more steps."
        )
    return curve[greys]


def _believed_greys(
    curve: Tensor, levels: int | None, table: Sequence[int], believed_turn_grey: float | None
) -> Tensor:
    """Grey value sent for each level, (levels,), int64."""
    if table:
        if levels not in (None, len(table)) or len(table) < 2:
            raise ConfigError(
                f"modulator: the driver's table has {len(table)} entries for "
                f"{levels or 'at least 2'} levels. Give one grey value per level."
            )
        return torch.tensor(list(table))
    if believed_turn_grey is not None:
        count = levels or max(2, int(believed_turn_grey / 2) + 1)
        return (even_phases(count) * (believed_turn_grey / TURN_RAD)).round().to(torch.int64)
    stroke = curve - curve[0]
    count = levels or _levels_apart(stroke)
    return (stroke - even_phases(count)[:, None]).abs().argmin(1)


def _levels_apart(stroke: Tensor) -> int:
    """Levels on [0, pi] whose spacing is no finer than the curve's coarsest step."""
    within = stroke[: int((stroke < math.pi).sum()) + 1]
    coarsest = within.diff().abs().max().item()
    return max(2, int(math.pi / max(coarsest, 1e-9) + 1e-9) + 1)


@dataclass(frozen=True)
class Settling:
    """Exponential response of the phase: phi(t) = new + (old - new) exp(-t / time_s).

    time_s: time constant; 0 is at once. wait_s: from sending a pattern to the
    exposure. The phase is taken as it stands then: valid for an exposure short
    against time_s, or a wait long against it. Source: the law is that of the
    simulated modulator of OpenWFS, there applied to grey values.
    """

    time_s: float = 0.0
    wait_s: float = 0.0

    def left(self, after_s: float) -> float:
        """Share of the old pattern that is left `after_s` after sending a new one."""
        return math.exp(-after_s / self.time_s) if self.time_s > 0 else 0.0


def settled(target: Tensor, before: Tensor, seen: float, kept: float) -> tuple[Tensor, Tensor]:
    """Patterns as the camera sees them, (batch, inputs), and the last one as it ends.

    target: (batch, inputs), rad, in the order in which they are sent. before:
    (inputs,), where the phases stood when the first was sent. seen, kept: share
    of the old pattern left at the exposure and when the next one is sent. Row by
    row, so that cutting a batch in two changes no bit.
    """
    shown = torch.empty_like(target)
    for wanted, out in zip(target, shown, strict=True):
        away = before - wanted
        torch.add(wanted, away, alpha=seen, out=out)
        before = torch.add(wanted, away, alpha=kept)
    return shown, before


class PhaseSlm:
    """A phase modulator that settles, or whose neighbouring pixels disturb each other.

    plain: levels, faults and light without either. phases_rad: (levels,), the
    true ones. crosstalk: see `blurred`; macropixels lie row by row on a grid
    ceil(sqrt(inputs)) wide.
    """

    real = False

    def __init__(
        self,
        plain: LevelModulator,
        phases_rad: Tensor,
        inputs: int,
        *,
        settling: Settling,
        crosstalk: float,
        pixels_per_side: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._plain = plain
        self._phases = phases_rad.to(torch.float32).to(device)
        self._settling = settling
        self._crosstalk, self._side = crosstalk, pixels_per_side
        self._neighbours = neighbours(inputs, math.isqrt(inputs - 1) + 1).to(device)
        self.settles = settling.time_s > 0

    @property
    def levels(self) -> int:
        return self._plain.levels

    @property
    def shown(self) -> Tensor:
        return self._plain.shown

    def encode(self, drive: Tensor) -> Tensor:
        """Level asked of each macropixel, (batch, inputs), int64; drive in [0, 1]."""
        return self._plain.encode(drive)

    def phases(
        self, drive: Tensor, dead_fraction: float = 0.0, stuck_fraction: float | None = None
    ) -> Tensor:
        """Phases that the macropixels approach, (batch, inputs), rad, float32."""
        levels = self._plain.held(drive, dead_fraction, stuck_fraction)
        return self._phases.index_select(0, levels.flatten()).view(levels.shape)

    def light(
        self, drive: Tensor, dead_fraction: float = 0.0, stuck_fraction: float | None = None
    ) -> Tensor:
        """Field behind the settled modulator, (batch, inputs), complex64."""
        return self._field(self.phases(drive, dead_fraction, stuck_fraction))

    def light_in_order(
        self,
        drive: Tensor,
        before: Tensor | None,
        frame_s: float,
        dead_fraction: float = 0.0,
        stuck_fraction: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Field seen in each frame, (batch, inputs), and the phases it ends with, (inputs,).

        The rows of `drive` are sent frame_s apart. before: what the frames before
        this batch ended with; None for a modulator at rest (level 0).
        """
        target = self.phases(drive, dead_fraction, stuck_fraction)
        start = self._phases[:1].expand(target.shape[1]) if before is None else before
        seen, kept = (self._settling.left(t) for t in (self._settling.wait_s, frame_s))
        shown, after = settled(target, start, seen, kept)
        return self._field(shown), after

    def relaxed(self, last: Tensor, target: Tensor, seconds: float) -> Tensor:
        """Phases (inputs,) after resting for `seconds` with `target` (inputs,) on display."""
        return target + (last - target) * self._settling.left(seconds)

    def _field(self, phases: Tensor) -> Tensor:
        if self._crosstalk > 0:
            return blurred(phases, self._neighbours, self._crosstalk, self._side)
        return torch.complex(phases.cos(), phases.sin())


def neighbours(inputs: int, columns: int) -> Tensor:
    """Left, right, upper and lower neighbour of each macropixel, (4, inputs), int64.

    On a grid filled row by row; at its edge a macropixel is its own neighbour.
    """
    own = torch.arange(inputs)
    column = own % columns
    left, right = own - (column > 0).long(), own + (column < columns - 1).long()
    up, down = own - columns, own + columns
    return torch.stack(
        [torch.where((n >= 0) & (n < inputs), n, own) for n in (left, right, up, down)]
    )


def blurred(phases: Tensor, beside: Tensor, crosstalk: float, side: int) -> Tensor:
    """Mean field of each macropixel when pixels take up their neighbours' phase.

    A physical pixel shows (1 - crosstalk) of its own phase and crosstalk / 4 of
    each of the four beside it, so only the rim of a macropixel of side x side
    pixels changes. phases: (batch, inputs), rad; beside: (4, inputs). The mean
    over the macropixel is all that reaches the camera: valid where the optics
    behind do not resolve it. Modulus at most 1. Law: linear blur of the phase
    (Persson et al. 2012; Moser et al. 2019, Opt. Express 27, 25046), here only
    to the nearest pixel.
    """
    steps = [(phases[:, n] - phases) * (crosstalk / 4) for n in beside]
    field = torch.zeros_like(phases, dtype=torch.complex64)
    for across, share_x in _rims(steps[0], steps[1], side):
        for along, share_y in _rims(steps[2], steps[3], side):
            shown = phases + across + along
            field += torch.complex(shown.cos(), shown.sin()) * (share_x * share_y)
    return field


def _rims(low: Tensor, high: Tensor, side: int) -> list[tuple[Tensor, float]]:
    """Shift of the phase at both rims and in between, with their shares of the side."""
    if side == 1:
        return [(low + high, 1.0)]
    inner = [(torch.zeros_like(low), (side - 2) / side)] if side > 2 else []
    return [(low, 1 / side), (high, 1 / side), *inner]
