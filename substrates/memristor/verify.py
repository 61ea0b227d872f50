"""Write-verify: pulse a cell, read it, stop when the read is close enough.

Conductances are tensors in siemens of any shape, the last two dimensions
(inputs, outputs) where rows matter. What a write achieves, how many pulses it
takes and costs; the closed forms are those of verifylaws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.memristor.verifylaws import (
    acceptance,
    expected_pulses,
    expected_yield,
    landed_sigma,
    verified_sigma,
)
from twin.errors import ConfigError, SettingError

__all__ = [
    "Law",
    "Verified",
    "WriteCost",
    "acceptance",
    "expected_pulses",
    "expected_yield",
    "landed_sigma",
    "verified_sigma",
    "write_once",
    "write_verify",
]

Law = float | Tensor | Callable[[Tensor], Tensor]
"""Siemens for every cell alike, cell by cell, or as a function of the target."""


@dataclass(frozen=True, kw_only=True)
class WriteCost:
    """What a write took, in seconds of device time and joules."""

    pulses: int
    checks: int
    seconds: float
    joules: float


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a write did to each cell; all of the shape of the targets.

    conductances: siemens, float32, >= 0. pulses: int32. verified: bool, the
    last check found the cell within the tolerance. checked: whether cells were
    checked at all, which a one-shot write does not do.
    """

    conductances: Tensor
    pulses: Tensor
    verified: Tensor
    checked: bool = True

    @property
    def yielded(self) -> float:
        """Verified cells / all cells; 0 after a one-shot write."""
        return float(self.verified.double().mean())

    @property
    def total_pulses(self) -> int:
        return int(self.pulses.sum(dtype=torch.int64))

    def cost(
        self,
        *,
        pulse_s: float,
        pulse_joules: float,
        check_s: float = 0.0,
        check_joules: float = 0.0,
        first_check_s: float | None = None,
        first_check_joules: float | None = None,
        row_parallel: bool = False,
    ) -> WriteCost:
        """Time and energy of this write, as first-order laws.

        Energy: pulses x pulse_joules + checks x check_joules; every cell is
        checked once before the first pulse and once after each. Leave check_s
        and check_joules at 0 where a pulse's figures include its check, and give
        those of the check before the first pulse as first_check_...; None: as check_...
        Time, cells one after the other: the same sum with the seconds.
        row_parallel: the cells of one row (both of each pair) are pulsed and
        checked at once, rows one after the other, each for as many rounds as
        its slowest cell needs.

        Only device time; a host adds its own. Anchor: a 640 x 128 array took
        184 s for 87 rounds, 2.1 s a round, on the A111 board (its public
        notebook 07.a111_rram_operate). Pulses of equal cost are assumed.
        """
        first_s = check_s if first_check_s is None else first_check_s
        first_joules = check_joules if first_check_joules is None else first_check_joules
        costs = (pulse_s, pulse_joules, check_s, check_joules, first_s, first_joules)
        if not all(math.isfinite(c) and c >= 0 for c in costs):
            raise ConfigError(
                "write cost: pulse_s, check_s (seconds), pulse_joules and check_joules must be "
                f"finite and >= 0, got {costs}."
            )
        pulses, cells = self.total_pulses, self.pulses.numel()
        slots, first_slots = _row_rounds(self.pulses) if row_parallel else (pulses, cells)
        if not self.checked:
            check_s = check_joules = first_s = first_joules = 0.0
        return WriteCost(
            pulses=pulses,
            checks=pulses + cells if self.checked else 0,
            seconds=slots * (pulse_s + check_s) + first_slots * first_s,
            joules=pulses * (pulse_joules + check_joules) + cells * first_joules,
        )


def write_verify(
    targets: Tensor,
    start: Tensor,
    *,
    pulse_sigma: Law,
    tolerance: float | Tensor,
    max_pulses: int,
    read_sigma: Law | None = None,
    never: Tensor | None = None,
    stuck: Tensor | None = None,
    renew: Tensor | None = None,
    generator: torch.Generator,
) -> Verified:
    """Write `targets` into cells that are at `start`, both in siemens.

    All cells are checked first; one that reads within the tolerance takes no
    pulse (94.4 % of an array of mostly unchanged cells in the A111 log). Then
    each round pulses the cells not yet verified and checks them, max_pulses
    times at most. A pulse lands at target + pulse_sigma x N(0, 1), clamped at
    0, independent of where the cell was; a check reads that conductance +
    read_sigma x N(0, 1) and accepts |read - target| <= tolerance.

    pulse_sigma, read_sigma: functions are evaluated once, at the targets.
    never: bool, cells no check accepts; they keep landing and take max_pulses.
    stuck: bool, cells no pulse moves; verified only if they sit where wanted.
    renew: bool, cells that are pulsed whatever the first check says.
    generator: consumed in an order that does not depend on max_pulses, so a
    longer write continues a shorter one.

    Valid for pulses that re-form the state (landing without memory). A staircase
    of small steps reaches a tolerance below pulse_sigma in fewer pulses.
    """
    _require(targets, start, max_pulses)
    sigma = _siemens(pulse_sigma, targets, "pulse_sigma")
    noise = None if read_sigma is None else _siemens(read_sigma, targets, "read_sigma")
    window = _siemens(tolerance, targets, "tolerance")
    refused = _mask(never, targets, "never")
    fixed = _mask(stuck, targets, "stuck")
    due = _mask(renew, targets, "renew")

    target, g = targets.float().flatten(), start.float().flatten().clone()

    def accepted(cells: Tensor) -> Tensor:
        read = g[cells]
        if noise is not None:
            read = read + noise[cells] * _normals(read, generator)
        close = (read - target[cells]).abs() <= window[cells]
        return close if refused is None else close & ~refused[cells]

    pulses = torch.zeros(g.shape, dtype=torch.int32, device=g.device)
    left = torch.arange(g.numel(), device=g.device)
    fine = accepted(left)
    left = left[~fine if due is None else ~fine | due]
    for _ in range(max_pulses):
        if not left.numel():
            break
        pulses[left] += 1
        landed = target[left] + sigma[left] * _normals(left, generator)
        if fixed is not None:
            landed = torch.where(fixed[left], g[left], landed)
        g[left] = landed.clamp_(min=0)
        left = left[~accepted(left)]
    verified = torch.ones(g.shape, dtype=torch.bool, device=g.device)
    verified[left] = False
    shape = targets.shape
    return Verified(
        conductances=g.view(shape), pulses=pulses.view(shape), verified=verified.view(shape)
    )


def write_once(
    targets: Tensor,
    start: Tensor,
    *,
    pulse_sigma: Law,
    stuck: Tensor | None = None,
    generator: torch.Generator,
) -> Verified:
    """The cheap mode: one pulse for every cell and no check; nothing is verified.

    Lands as in :func:`write_verify`, with the full spread pulse_sigma.
    """
    _require(targets, start, 1)
    sigma = _siemens(pulse_sigma, targets, "pulse_sigma").view(targets.shape)
    landed = (targets.float() + sigma * _normals(targets, generator)).clamp_(min=0)
    fixed = _mask(stuck, targets, "stuck")
    if fixed is not None:
        landed = torch.where(fixed.view(targets.shape), start.float(), landed)
    return Verified(
        conductances=landed,
        pulses=torch.ones(targets.shape, dtype=torch.int32, device=targets.device),
        verified=torch.zeros(targets.shape, dtype=torch.bool, device=targets.device),
        checked=False,
    )


# ---- parts -------------------------------------------------------------------


def _row_rounds(pulses: Tensor) -> tuple[int, int]:
    """Rounds summed over rows, and rows, of pulses (..., inputs, outputs)."""
    if pulses.ndim < 2:
        raise ConfigError(
            "write cost: row_parallel needs cells of shape (..., inputs, outputs), "
            f"got {tuple(pulses.shape)}. Use row_parallel=False."
        )
    rows = pulses.movedim(-2, 0).flatten(1)
    return int(rows.amax(1).sum(dtype=torch.int64)), len(rows)


def _normals(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(like.shape, generator=generator, device=generator.device)
    return drawn.to(like.device)


def _siemens(law: Law, targets: Tensor, name: str) -> Tensor:
    """The law at every target, flat; finite and >= 0."""
    value = law(targets) if callable(law) else law
    flat = torch.as_tensor(value, dtype=torch.float32, device=targets.device)
    try:
        flat = flat.broadcast_to(targets.shape).flatten()
    except RuntimeError:
        raise SettingError(
            f"write: {name} has shape {tuple(flat.shape)}, the targets {tuple(targets.shape)}. "
            "Give one number in siemens, or one per cell."
        ) from None
    bad = ~((flat >= 0) & (flat < math.inf))
    if bool(bad.any()):
        raise SettingError(
            f"write: {name} must be finite and >= 0 siemens, got {flat[bad][0].item()}."
        )
    return flat


def _mask(mask: Tensor | None, targets: Tensor, name: str) -> Tensor | None:
    if mask is None:
        return None
    if mask.shape != targets.shape or mask.dtype != torch.bool:
        raise SettingError(
            f"write: {name} must be a bool mask of shape {tuple(targets.shape)}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    return mask.to(targets.device).flatten()


def _require(targets: Tensor, start: Tensor, max_pulses: int) -> None:
    if isinstance(max_pulses, bool) or not isinstance(max_pulses, int) or max_pulses < 0:
        raise ConfigError(f"write: max_pulses must be a whole number >= 0, got {max_pulses!r}.")
    if start.shape != targets.shape:
        raise SettingError(
            f"write: the cells have shape {tuple(start.shape)}, their targets "
            f"{tuple(targets.shape)}. Give one target for each cell."
        )
    for name, g in (("targets", targets), ("start", start)):
        bad = ~((g >= 0) & (g < math.inf))
        if bool(bad.any()):
            raise SettingError(
                f"write: {name} must be finite and >= 0 siemens, got {g[bad][0].item()}. "
                "Clip the targets to the device's window."
            )
