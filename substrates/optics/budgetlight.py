"""What defects of the light do to speckle: closed forms of the error budget.

Pearson means the correlation, over camera pixels, of two intensity patterns
behind one medium. Fields are circular Gaussian, so it is |overlap of the light|^2
(Siegert relation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def sinc(x: float) -> float:
    """sin(pi x) / (pi x)."""
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def full_turn(levels: int) -> float:
    """Pearson of phases rounded to `levels` evenly spaced ones on the whole circle.

    sinc^2(1 / levels), for wanted phases uniform on the circle and many inputs:
    the rounding error is uniform on +- pi / levels.
    """
    return sinc(1 / levels) ** 2


def half_turn(levels: int) -> float:
    """Pearson of phases rounded to `levels` ones on [0, pi], both ends included.

    sinc^2(1 / (2 (levels - 1))), for wanted phases uniform on [0, pi] and many
    inputs. The step is pi / (levels - 1); both ends serve half a cell, and these
    halves make the rounding error uniform on +- half a step.
    """
    return sinc(1 / (2 * (levels - 1))) ** 2


@dataclass(frozen=True)
class Overlap:
    """How light that is shown is like light that is wanted, per macropixel.

    mean: <conj(wanted) shown>; power: <|shown|^2>; wanted_mean, wanted_power: of
    the wanted light; all over a drive uniform in [0, 1].
    """

    mean: complex
    power: float
    wanted_mean: complex
    wanted_power: float

    @property
    def pearson(self) -> float:
        """Of the speckle patterns, for many inputs."""
        return abs(self.mean) ** 2 / (self.power * self.wanted_power)


def phase_overlap(shown: Tensor) -> Overlap:
    """Of the levels `shown`, (levels,), with exp(i pi drive); exact for any table.

    A drive is rounded to the nearest of evenly spaced levels, so each serves a
    cell, those at the ends half of one.
    """
    rims = _rims(len(shown))
    # The integral of exp(-i pi u) over each cell.
    turned = torch.polar(torch.ones_like(rims), -math.pi * rims).diff() * (1j / math.pi)
    mean = complex((shown * turned).sum().item())
    return Overlap(mean, _power(shown, rims), 2j / math.pi, 1.0)


def amplitude_overlap(shown: Tensor, threshold: float | None = None) -> Overlap:
    """Of mirror levels `shown`, (levels,), with the drive itself as an amplitude.

    threshold: where the upper of two levels begins; by default as for phases.
    """
    rims = _rims(len(shown)) if threshold is None else torch.tensor([0, threshold, 1]).double()
    mean = complex((shown * rims.square().diff() / 2).sum().item())
    return Overlap(mean, _power(shown, rims), 0.5, 1 / 3)


def faulty_overlap(shown: Tensor, good: Overlap, dead: float, stuck: float) -> Overlap:
    """`good` where a share `dead` stays at level 0 and a share `stuck` at any level.

    A macropixel that is both is dead. Stuck levels are uniform over all levels.
    """
    rest, anywhere = complex(shown[0].item()), complex(shown.mean().item())
    wanted = good.wanted_mean.conjugate()
    stuck *= 1 - dead
    live = 1 - dead - stuck
    return Overlap(
        live * good.mean + wanted * (dead * rest + stuck * anywhere),
        live * good.power + dead * abs(rest) ** 2 + stuck * shown.abs().square().mean().item(),
        good.wanted_mean,
        good.wanted_power,
    )


def settling(seen: float, kept: float) -> float:
    """Pearson of phases that are still on their way, for many inputs.

    seen, kept: share of the old pattern left at the exposure and at the next
    sending. The error is pi seen (old - new), old = the sum over j of (1 - kept)
    kept^j times the drive j frames before; so [sinc(seen / 2) prod_j sinc(seen
    (1 - kept) kept^j / 2)]^2, for independent uniform drives on [0, pi] and a
    long run of frames.
    """
    product, share = sinc(seen / 2), seen * (1 - kept)
    while share > 1e-6:
        product *= sinc(share / 2)
        share *= kept
    return product**2


def flicker(rms_rad: float) -> float:
    """exp(-rms^2): independent Gaussian phase jitter of every macropixel, many inputs."""
    return math.exp(-(rms_rad**2))


def few_inputs(pearson: float, inputs: int) -> float:
    """Pearson with `inputs` macropixels instead of many: p + (1 - p) / inputs.

    Independent errors do not average out: the mean of |mean of n phasors|^2.
    Exact for light of constant modulus, else up to terms of order 1 / inputs.
    """
    return pearson + (1 - pearson) / inputs


def drift(field_correlation: float) -> float:
    """rho^2 of a medium whose coefficients keep a correlation rho (|rho| <= 1)."""
    return field_correlation**2


def _rims(levels: int) -> Tensor:
    """Where in [0, 1] one level hands over to the next, (levels + 1,), ends included."""
    inner = (torch.arange(levels - 1, dtype=torch.float64) + 0.5) / (levels - 1)
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def _power(shown: Tensor, rims: Tensor) -> float:
    return (shown.abs().square() * rims.diff()).sum().item()
