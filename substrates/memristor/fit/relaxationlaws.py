"""The two relaxation laws a fit can choose from, in microsiemens.

Free parameters (unbounded, as an optimiser likes them) to natural ones (as the
device file states them) to the moments of a cell's readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from substrates.memristor.fit.trajectories import UNIT_SIEMENS, Cells, Shape

Natural = Mapping[str, Tensor]
"""Values by name: one per level, or one."""


@dataclass(frozen=True)
class Quantity:
    """A fitted quantity: name in the fit, label and unit in the report.

    scale: from the fit's unit (uS, or none) to `unit`. spread: a standard
    deviation, whose sign means nothing.
    """

    name: str
    label: str
    unit: str
    scale: float
    per_level: bool
    spread: bool


SIGMA = Quantity("sigma", "sigma", "S", UNIT_SIEMENS, True, True)
LEVEL = Quantity("level", "read_noise.level", "1", 1.0, False, True)
SPREAD_LN = Quantity("spread_ln", "read_noise.spread_ln", "1", 1.0, False, True)


class Law(Protocol):
    """A relaxation law with its programming and read noise."""

    @property
    def name(self) -> str: ...

    @property
    def quantities(self) -> tuple[Quantity, ...]: ...

    def start(self, cells: Cells, levels: int) -> Tensor:
        """Free parameters to begin with, (P,)."""
        ...

    def natural(self, free: Tensor, levels: int) -> dict[str, Tensor]:
        """What they mean, in the order of `quantities`."""
        ...

    def at_bounds(self, free: Tensor, levels: int) -> Tensor:
        """Which free parameters (P,) should be 0 instead."""
        ...

    def shape(self, natural: Natural, cells: Cells) -> Shape:
        """Moments of the readings of cells."""
        ...


@dataclass(frozen=True)
class LogLaw:
    """G = target + sigma a - m L + (s0 + s L) n, L = ln(t / first), a and n N(0, 1)."""

    name: str = "log"
    quantities: tuple[Quantity, ...] = (
        SIGMA,
        Quantity("mean", "mean_siemens_per_ln", "S", UNIT_SIEMENS, False, False),
        Quantity("slope", "spread_siemens_per_ln", "S", UNIT_SIEMENS, False, True),
        Quantity("start", "spread_siemens", "S", UNIT_SIEMENS, False, True),
        LEVEL,
        SPREAD_LN,
    )

    def start(self, cells: Cells, levels: int) -> Tensor:
        intercept, slope, level = _lines(cells)
        sigma = _spread_by_level(intercept - cells.target, cells.level, levels)
        one = [-slope.mean(), slope.std(), torch.tensor(0.3), level.log(), torch.tensor(0.3)]
        return torch.cat([sigma.log(), torch.stack([v.double() for v in one])])

    def natural(self, free: Tensor, levels: int) -> dict[str, Tensor]:
        whole, (mean, slope, share, level, spread_ln) = free[:levels].exp(), free[levels:]
        # s0 may explain at most the smallest spread at the first time; 0.9999
        # keeps the slope of the square root finite.
        start = 0.9999 * share.tanh() * whole.min()
        sign = torch.where(slope < 0, -1.0, 1.0)
        return {
            "sigma": (whole.square() - start.square()).sqrt(),
            "mean": mean[None],
            "slope": (sign * slope)[None],
            "start": (sign * start)[None],
            "level": level.exp()[None],
            "spread_ln": spread_ln.abs()[None],
        }

    def at_bounds(self, free: Tensor, levels: int) -> Tensor:
        held = torch.zeros(len(free), dtype=torch.bool)
        # A negative s0 would mean that cells which came out high relax faster.
        held[levels + 2] = free[levels + 1] * free[levels + 2] < 0
        held[levels] = free[levels] < 0
        return held

    def shape(self, natural: Natural, cells: Cells) -> Shape:
        start, slope = natural["start"], natural["slope"]
        whole = natural["sigma"][cells.level].square() + start.square()
        rest = torch.cat([start * slope, slope.square()]).expand(len(whole), 2)
        return Shape(
            mean=cells.target[:, None] - natural["mean"] * cells.log_t,
            first=torch.ones_like(cells.log_t),
            second=cells.log_t,
            covariance=torch.cat([whole[:, None], rest], 1),
            level=natural["level"],
            spread_ln=natural["spread_ln"],
        )


@dataclass(frozen=True)
class PowerLaw:
    """G = (target + sigma a) (t / first)^-(nu + d n), a and n N(0, 1).

    To first order about each cell's own best conductance and exponent, which is
    exact where read noise is small or the cell is read often.
    """

    name: str = "power"
    quantities: tuple[Quantity, ...] = (
        SIGMA,
        Quantity("exponent", "exponent", "1", 1.0, True, False),
        Quantity("exponent_spread", "exponent_spread", "1", 1.0, True, True),
        LEVEL,
        SPREAD_LN,
    )

    def start(self, cells: Cells, levels: int) -> Tensor:
        intercept, slope, level = _lines(cells)
        sigma = _spread_by_level(intercept - cells.target, cells.level, levels)
        nu = -slope / cells.target
        mean = torch.stack([nu[cells.level == i].mean() for i in range(levels)])
        spread = _spread_by_level(nu - mean[cells.level], cells.level, levels)
        one = torch.stack([level.log(), torch.tensor(0.3, dtype=torch.float64)])
        return torch.cat([sigma.log(), mean, spread, one])

    def natural(self, free: Tensor, levels: int) -> dict[str, Tensor]:
        return {
            "sigma": free[:levels].exp(),
            "exponent": free[levels : 2 * levels],
            "exponent_spread": free[2 * levels : 3 * levels].abs(),
            "level": free[-2].exp()[None],
            "spread_ln": free[-1].abs()[None],
        }

    def at_bounds(self, free: Tensor, levels: int) -> Tensor:
        held = torch.zeros(len(free), dtype=torch.bool)
        held[levels : 2 * levels] = free[levels : 2 * levels] < 0
        return held

    def shape(self, natural: Natural, cells: Cells) -> Shape:
        start, own = cells.power[:, :1], cells.power[:, 1:]
        first = torch.exp(-own * cells.log_t)
        second = -start * cells.log_t * first
        exponent = natural["exponent"][cells.level][:, None]
        sigma = natural["sigma"][cells.level].square()
        spread = natural["exponent_spread"][cells.level].square()
        return Shape(
            mean=cells.target[:, None] * first + (exponent - own) * second,
            first=first,
            second=second,
            covariance=torch.stack([sigma, torch.zeros_like(sigma), spread], 1),
            level=natural["level"],
            spread_ln=natural["spread_ln"],
        )


LAWS: dict[str, Law] = {"log": LogLaw(), "power": PowerLaw()}


def natural_names(kind: str, levels: int) -> list[str]:
    """The name of each entry of the flattened natural parameters."""
    return [q.name for q in LAWS[kind].quantities for _ in range(levels if q.per_level else 1)]


def _lines(cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
    """Intercept and slope in ln t of each cell (uS), and the r.m.s. relative noise."""
    # The smooth trajectory is a line: two of its readings give it.
    last = cells.taken.sum(1).long() - 1
    row = torch.arange(len(last))
    run = cells.log_t[row, last] - cells.log_t[:, 0]
    slope = (cells.scale[row, last] - cells.scale[:, 0]) / run
    intercept = cells.scale[:, 0] - slope * cells.log_t[:, 0]
    return intercept, slope, cells.spread.mean().sqrt()


def _spread_by_level(value: Tensor, level: Tensor, levels: int) -> Tensor:
    each = [value[level == i].square().mean().sqrt() for i in range(levels)]
    return torch.stack(each).clamp(min=1e-6)
