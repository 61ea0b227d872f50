"""Laws of a medium that moves: decorrelation, warm-up, jumps, the power of the laser.

Times in s of the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from substrates.optics.drift import PRESETS, Drifting, DriftTable
from substrates.optics.medium import GaussianMedium
from twin.key import Key
from validation.physics import estimates
from validation.physics.estimates import Estimate
from validation.physics.law import Check, Effort, Outcome, held
from validation.physics.resolved import resolved

CHANNELS = 2
"""The law of an entry is that of a sum: few suffice, and pixels can be many."""

OU = "complex Ornstein-Uhlenbeck, Siegert"


def drift(effort: Effort) -> Iterator[Outcome]:
    """Field and speckle some time after: rho = exp(-t / tau), and its square."""
    n = effort.n(500_000, 430_000)
    medium = moving(n, DriftTable(tau_s=100.0), effort.key)
    start = medium.matrix_at(0.0)
    for rho in (0.99, 0.9, 0.6):
        later = medium.matrix_at(-100.0 * math.log(rho))
        found = coherence(start, later)
        yield resolved(f"drift to rho = {rho:g}, field", found, rho, 0.01, OU)
        found = estimates.correlation(_speckle(start), _speckle(later))
        yield resolved(f"drift to rho = {rho:g}, speckle", found, rho**2, 0.01, f"rho^2, {OU}")
    # From a time that is not 0, where the path is drawn on both sides.
    first, second = medium.matrix_at(1234.5), medium.matrix_at(1234.5 + 100.0 * math.log(2))
    found = estimates.correlation(_speckle(first), _speckle(second))
    yield resolved("drift between two later times, speckle", found, 0.25, 0.01, f"rho^2, {OU}")
    found = estimates.mean(second.abs().square()).times(CHANNELS)
    yield resolved("drift keeps the power", found, 1.0, 0.02, OU)


def presets(effort: Effort) -> Iterator[Outcome]:
    """Speckle of the named drifts after their own time: 10 min, 1 s, an hour of warm-up."""
    n = effort.n(200_000, 100_000)
    # Integral of the rate 1/100 h + (1/1 h - 1/100 h) exp(-t / 1 h) over an hour.
    warm = 0.01 + 0.99 * (1 - math.exp(-1.0))
    tissue = next(name for name in PRESETS if name.startswith("tissue-like"))
    for name, seconds, exponent in (
        ("slow", 600.0, 0.5),
        (tissue, 1.0, 0.5),
        ("warm-up", 3600.0, warm),
    ):
        medium = moving(n, PRESETS[name], effort.key.child(name))
        found = estimates.correlation(*(_speckle(medium.matrix_at(t)) for t in (0.0, seconds)))
        law = math.exp(-2 * exponent)
        yield resolved(f"{name}, speckle after {seconds:g} s", found, law, 0.02, OU)
    still = PRESETS["static"]
    yield held("static moves nothing", still.static and not still.moves, "preset")


def jumps(effort: Effort) -> Iterator[Outcome]:
    """A jump replaces a part of the power: the speckle keeps 1 - fraction."""
    n, fraction = effort.n(300_000, 150_000), 0.3
    table = DriftTable(jump_times_s=(5.0,), jump_fraction=fraction)
    medium = moving(n, table, effort.key)
    start, before, after = (medium.matrix_at(t) for t in (0.0, 4.99, 5.01))
    yield held("before a jump nothing moves", bool(torch.equal(start, before)), "closed form")
    found = estimates.correlation(_speckle(before), _speckle(after))
    name = f"jump of {fraction:.0%}, speckle"
    yield resolved(name, found, 1 - fraction, 0.015, "1 - fraction")
    rate = DriftTable(jump_rate_hz=2.0, jump_fraction=fraction)
    clock = moving(2, rate, effort.key.child("rate"))
    parts, length = (20 if effort.quick else 80), 100.0
    each = -math.log(1 - fraction) / 2
    lost = [clock.correlation(i * length, (i + 1) * length) for i in range(parts)]
    count, span = sum(-math.log(left) / each for left in lost), parts * length
    rms = math.sqrt(2.0 * span)
    found = Estimate(count / span, rms / span, round(count))
    yield resolved("jumps per second", found, 2.0, 5.01 * rms / span, "Poisson", "Hz")


def absolute_time(effort: Effort) -> Iterator[Outcome]:
    """What a medium is at a time does not depend on what was asked before."""
    table = DriftTable(tau_s=10.0)
    walked, jumped = (moving(64, table, effort.key) for _ in range(2))
    for step in range(200):
        walked.matrix_at(0.1 * step)
    same = torch.equal(walked.matrix_at(20.0), jumped.matrix_at(20.0))
    yield held("a wait in 200 parts or at once", bool(same), "one path in device time")
    other = moving(64, replace(table), effort.key.child("other"))
    yield Check(
        name="two devices, field correlation",
        measured=coherence(other.matrix_at(20.0), jumped.matrix_at(20.0)).value,
        expected=0.0,
        tolerance=5 / math.sqrt(64 * CHANNELS),
        source="independent",
        n=64 * CHANNELS,
    )


def laser(effort: Effort) -> Iterator[Outcome]:
    """The laser's power: mean 1, the r.m.s. asked for."""
    n, rms = effort.n(4_000, 1_500), 0.1
    table = DriftTable(power_rms=rms, power_tau_s=1.0)
    times = 8.0 * np.arange(n)  # correlation exp(-8) from one to the next
    power = moving(2, table, effort.key).power(times)
    yield resolved("laser power, mean", estimates.mean(power), 1.0, 0.02, "log-normal, mean 1")
    found = estimates.standard_deviation(power)
    yield resolved("laser power, r.m.s.", found, rms, 0.12 * rms, "as asked for")


def moving(pixels: int, table: DriftTable, key: Key) -> Drifting:
    """A Gaussian medium of `pixels` that drifts."""
    medium = GaussianMedium(CHANNELS, pixels, key.child("medium"))
    return Drifting(medium, table, key.child("drift"))


def coherence(first: Tensor, second: Tensor) -> Estimate:
    """Real part of <a b*> / sqrt(<|a|^2> <|b|^2>) of independent entries."""
    a, b = (x.to(torch.complex128).flatten() for x in (first, second))
    parts = [torch.view_as_real(x).flatten() for x in (a, b)]
    # Zero-mean real and imaginary parts: Pearson of all of them is the real part.
    return estimates.correlation(*parts)


def _speckle(matrix: Tensor) -> Tensor:
    """Intensities (pixels,) of light that is the same on all channels."""
    return matrix.sum(1).abs().square()
