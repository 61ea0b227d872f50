"""A measured quantity as a function of conductance, as data.

Coefficients of a polynomial or a table of points, both with the range in which
they hold; outside it is an error. Conductances in siemens.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from twin.config import STRICT
from twin.errors import SettingError

ROUNDING = 1e-6
"""Relative excess over a range that counts as float32 rounding."""

HOLE_RATIO = 3.0
"""Neighbouring points further apart than half the range and than this factor
are a hole, not a table."""

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Curve:
    """A non-negative function of conductance, in the unit its owner states.

    Exactly one of `coefficients` and `points`.
    """

    low_siemens: NonNegative
    """Lower end of the range in which the curve holds, siemens."""
    high_siemens: Positive
    """Upper end of that range, siemens."""
    unit_siemens: Positive = 1e-6
    """The polynomial's variable is x = G / unit_siemens."""
    of_log: bool = False
    """The polynomial's variable is ln(G / unit_siemens) instead."""
    coefficients: tuple[float, ...] = ()
    """sum_k coefficients[k] x**k."""
    points: tuple[tuple[float, float], ...] = ()
    """(G in siemens, value), ascending in G, linear in between; reaches both
    ends of the range without a hole."""
    least: NonNegative = 0.0
    """Values below are raised to this."""
    most: Positive | None = None
    """Values above are lowered to this."""

    def __call__(self, g: Tensor) -> Tensor:
        """The value at conductances g (any shape), siemens.

        Raises SettingError where g leaves the range by more than rounding.
        """
        self.require(g)
        g = g.clamp(self.low_siemens, self.high_siemens)
        value = _interpolated(self.points, g) if self.points else self._polynomial(g)
        return value.clamp(self.least, self.most)

    def require(self, g: Tensor, what: str = "conductance") -> None:
        """SettingError unless all of g lies in the range."""
        slack = ROUNDING * self.high_siemens
        # NaN fails both comparisons.
        bad = ~((g >= self.low_siemens - slack) & (g <= self.high_siemens + slack))
        if bool(bad.any()):
            raise SettingError(
                f"{what} must be from {self.low_siemens:g} to {self.high_siemens:g} S, where "
                f"this device was measured, got {g[bad].flatten()[0].item():g} S. Choose a "
                f"window inside that range or another technology."
            )

    def _polynomial(self, g: Tensor) -> Tensor:
        x = g / self.unit_siemens
        if self.of_log:
            x = x.log()
        value = torch.full_like(x, self.coefficients[-1])
        for coefficient in self.coefficients[-2::-1]:
            value = value * x + coefficient
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low_siemens >= self.high_siemens:
            raise ValueError(
                f"low_siemens ({self.low_siemens:g} S) must be below high_siemens "
                f"({self.high_siemens:g} S)"
            )
        if bool(self.coefficients) == bool(self.points):
            raise ValueError("give either coefficients or points, and not both")
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most ({self.most:g}) must not be below least ({self.least:g})")
        if self.points:
            self._require_table()
        elif self.of_log and self.low_siemens == 0 and self.most is None:
            raise ValueError("a curve of ln G down to 0 S needs least and most")
        self._require_positive()
        return self

    def _require_table(self) -> None:
        grid = [g for g, _ in self.points]
        for a, b in pairwise(grid):
            if b <= a:
                raise ValueError(
                    f"points must ascend in conductance, got {b:g} S after {a:g} S; sort the "
                    f"table and average repeated conductances"
                )
        for a, b in pairwise(grid):
            wide = b - a > (self.high_siemens - self.low_siemens) / 2
            if wide and b > HOLE_RATIO * a:
                raise ValueError(
                    f"the table has a hole between {a:g} and {b:g} S; measure points in "
                    f"between, or narrow low_siemens and high_siemens"
                )
        slack = ROUNDING * self.high_siemens
        if grid[0] > self.low_siemens + slack or grid[-1] < self.high_siemens - slack:
            raise ValueError(
                f"points reach from {grid[0]:g} to {grid[-1]:g} S but the range is "
                f"{self.low_siemens:g} to {self.high_siemens:g} S; narrow the range"
            )

    def _require_positive(self) -> None:
        if self.points:
            low = min(value for _, value in self.points)
        else:
            ends = (self.low_siemens, self.high_siemens)
            grid = torch.linspace(*ends, 1025, dtype=torch.float64)
            low = float(self._polynomial(grid).min())
        if self.least == 0 and not low >= 0:
            raise ValueError(
                f"the curve falls to {low:g} inside its range; a spread or an exponent is "
                f"never negative: narrow the range or set least"
            )


def _interpolated(points: tuple[tuple[float, float], ...], g: Tensor) -> Tensor:
    """Linear between points; g within them but for rounding."""
    grid = torch.tensor([p[0] for p in points], dtype=torch.float64, device=g.device)
    value = torch.tensor([p[1] for p in points], dtype=torch.float64, device=g.device)
    x = g.to(torch.float64).clamp(grid[0], grid[-1])
    right = torch.searchsorted(grid, x.contiguous()).clamp(1, len(points) - 1)
    share = (x - grid[right - 1]) / (grid[right] - grid[right - 1])
    return torch.lerp(value[right - 1], value[right], share).to(g.dtype)
