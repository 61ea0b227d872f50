"""One statistic of a backend's frames, what it should be, and the error of knowing it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twin.errors import ConfigError
from validation.summary import Figure

SIGMAS = 5.0
GROUPS = 32
"""Parts that are left out in turn to find a standard error: its own relative
error is 1 / sqrt(2 x 31) = 13 %."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """An estimate with its standard error, and the interval it has to be in.

    low, high: None where one side is open. law: what is expected of a fully
    developed speckle field behind an i.i.d. medium, and why. n: sample size.
    """

    name: str
    value: float
    standard_error: float
    low: float | None
    high: float | None
    law: str
    n: int
    unit: str = "1"

    @property
    def passes(self) -> bool:
        """Whether the estimate is inside; one that is not a number is not."""
        return self.figure().holds is True

    def figure(self, seed: int = 0) -> Figure:
        """The certificate as it goes into summary.json."""
        sides = ((">=", self.low), ("<=", self.high))
        bound = " and ".join(f"{sign} {side:.6g}" for sign, side in sides if side is not None)
        return Figure(self.name, self.value, self.unit, bound, self.n, self.standard_error, (seed,))


def around(
    name: str, found: tuple[float, float], expected: float, tolerance: float, law: str, n: int
) -> Certificate:
    """Within a tolerance of `expected`, or within five standard errors where those are more.

    found: the estimate and its standard error.
    """
    value, error = found
    allowed = max(tolerance, SIGMAS * error)
    return Certificate(
        name=name,
        value=value,
        standard_error=error,
        low=expected - allowed,
        high=expected + allowed,
        law=law,
        n=n,
    )


def jackknifed(
    statistic: Callable[[Tensor], float], n: int, groups: int = GROUPS
) -> tuple[float, float]:
    """A statistic of n units and its standard error, leaving out runs of units in turn.

    statistic: of the indices of the units that stay. The runs are contiguous,
    so that neighbours which are alike (a speckle grain) count once.
    """
    groups = min(groups, n)
    if groups < 2:
        raise ConfigError(f"a standard error needs 2 or more units to leave out, got {n}.")
    everything = torch.arange(n)
    parts = [torch.cat([everything[: c[0]], everything[c[-1] + 1 :]]) for c in
             everything.tensor_split(groups)]  # fmt: skip
    left = torch.tensor([statistic(part) for part in parts], dtype=torch.float64)
    spread = (left - left.mean()).square().sum().item()
    return statistic(everything), math.sqrt(spread * (groups - 1) / groups)
