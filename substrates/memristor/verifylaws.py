"""Closed forms of write-verify with independent Gaussian landings.

p is the probability that one pulse is accepted; sigmas and tolerances are in
siemens. Imports nothing of ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def acceptance(pulse_sigma: float, tolerance: float, read_sigma: float = 0.0) -> float:
    """Probability p that one pulse is accepted: erf(tolerance / (s sqrt 2)).

    s^2 = pulse_sigma^2 + read_sigma^2, all in siemens. Exact for targets far
    above 0. Without read noise a target below the tolerance is accepted with
    (1 + p) / 2 instead, since the clamp at 0 leaves only one side to miss on.
    """
    spread = math.hypot(pulse_sigma, read_sigma)
    return 1.0 if spread == 0 else math.erf(tolerance / (spread * math.sqrt(2)))


def expected_yield(p: float, max_pulses: int, passed: float = 0.0, never: float = 0.0) -> float:
    """Mean verified fraction: (1 - never) (passed + (1 - passed) (1 - (1 - p)^k)).

    p: as of :func:`acceptance`. k: max_pulses. passed: fraction of the cells
    that pass the first check. never: fraction that never verifies.
    """
    return (1 - never) * (passed + (1 - passed) * -_power_less_one(1 - p, max_pulses))


def expected_pulses(p: float, max_pulses: int, passed: float = 0.0, never: float = 0.0) -> float:
    """Mean pulses per cell: a geometric number cut at k, (1 - (1 - p)^k) / p.

    Arguments as of :func:`expected_yield`; a cell that passed takes none, one
    that never verifies k.
    """
    each = max_pulses if p == 0 else -_power_less_one(1 - p, max_pulses) / p
    return never * max_pulses + (1 - never) * (1 - passed) * each


def verified_sigma(pulse_sigma: float, tolerance: float) -> float:
    """Standard deviation of pulsed and verified cells about their target, siemens.

    Of a normal truncated at +-tolerance: s sqrt(1 - 2 a phi(a) / erf(a / sqrt 2)),
    a = tolerance / s. Without read noise and clamp.
    """
    if pulse_sigma == 0 or tolerance == 0:
        return 0.0
    a = tolerance / pulse_sigma
    if a < 1e-3:
        # The difference below cancels; the truncated normal is uniform to 1e-7.
        return tolerance / math.sqrt(3)
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    return pulse_sigma * math.sqrt(1 - 2 * a * density / math.erf(a / math.sqrt(2)))


def landed_sigma(pulse_sigma: Tensor, tolerance: Tensor, read_sigma: Tensor) -> Tensor:
    """The same cell by cell and behind read noise, siemens; all of one shape.

    With s^2 = pulse^2 + read^2 a reading is a normal of sigma s cut at the tolerance,
    and the cell is (pulse / s)^2 of it plus an independent normal of pulse read / s.
    """
    pulse, read = pulse_sigma.double(), read_sigma.double()
    spread = torch.hypot(pulse, read)
    a = tolerance.double() / spread.clamp(min=1e-300)
    wide = a.clamp(1e-3, 40.0)
    density = torch.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    cut = 1 - 2 * wide * density / torch.erf(wide / math.sqrt(2))
    # Below, the difference cancels; the cut normal is uniform to 1e-7.
    variance = torch.where(a < 1e-3, a * a / 3, cut)
    share = (pulse / spread.clamp(min=1e-300)).square()
    found = pulse.square() * (share * variance + (1 - share))
    return found.sqrt().to(pulse_sigma.dtype)


def _power_less_one(base: float, exponent: int) -> float:
    """base^exponent - 1 without losing a small difference."""
    if base == 0 or exponent == 0:
        return base**exponent - 1
    return math.expm1(exponent * math.log(base))
