"""Laws of the modulator, of drift and of the medium's phases: what they do to a pattern.

Pearson is over the pixels of one frame, between the intensities of a perfect
instrument and of one with the defect, averaged over random patterns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.optics.medium import gaussian_matrix
from substrates.optics.modulator import (
    LevelModulator,
    PhaseModulator,
    even_phases,
    flickered,
    phase_light,
    require_injective,
)
from substrates.optics.parametershift import shift_derivative
from twin.errors import ConfigError
from validation.physics import estimates
from validation.physics.estimates import Estimate
from validation.physics.law import Check, Effort, Outcome, held
from validation.physics.resolved import resolved

INPUTS, PIXELS = 784, 4096


def levels(effort: Effort) -> Iterator[Outcome]:
    """L phases on the whole circle: Pearson sinc^2(1 / L)."""
    bench = Bench(effort)
    for count in (4, 8, 16, 256):
        shown = phase_light(2 * math.pi * torch.arange(count, dtype=torch.float64) / count)
        modulator = LevelModulator(shown, INPUTS, effort.key)
        # Each level serves a whole cell, so that no phase has to wrap around.
        cells = count * bench.drive - 0.5
        wanted = torch.polar(torch.ones_like(cells), cells * (2 * math.pi / count))
        found = bench.pearson(wanted, modulator.light(cells / (count - 1)))
        law = sinc(1 / count) ** 2
        yield resolved(f"{count} levels on a turn, Pearson", found, law, 0.005, "sinc^2(1 / L)")


def half_turn(effort: Effort) -> Iterator[Outcome]:
    """The modulator of the rig, L phases on [0, pi]: sinc^2(1 / (2 (L - 1)))."""
    bench = Bench(effort)
    wanted = _turned(math.pi * bench.drive)
    for count in (2, 4, 16):
        modulator = PhaseModulator(INPUTS, count, effort.key)
        found = bench.pearson(wanted, modulator.light(bench.drive))
        law = sinc(1 / (2 * (count - 1))) ** 2
        name = f"{count} levels on [0, pi], Pearson"
        yield resolved(name, found, law, 0.01, "sinc^2(1 / (2 (L - 1)))")
    for dead in (0.1, 0.3):
        modulator = PhaseModulator(INPUTS, 65_536, effort.key.child("dead"))
        found = bench.pearson(wanted, modulator.light(bench.drive, dead))
        lit = modulator.light(torch.ones(1, INPUTS), dead).real < 0
        share = 1 - lit.double().mean().item()  # how many are dead is drawn once
        # Dead ones show 1 where exp(i pi drive), of mean 2i / pi, was wanted.
        law = (1 - share) ** 2 + (share * 2 / math.pi) ** 2
        name = f"{dead:.0%} dead macropixels, Pearson"
        # One medium: what dead ones show is the same field in all patterns.
        yield resolved(name, found, law, 0.1 * dead, "|mean overlap of the light|^2")


def flicker(effort: Effort) -> Iterator[Outcome]:
    """Independent phase jitter of sigma rad: exp(-sigma^2)."""
    bench = Bench(effort)
    wanted = _turned(2 * math.pi * bench.drive)
    for sigma in (0.1, 0.3, 1.0):
        shown = flickered(wanted, sigma, effort.key.child("jitter"), 0)
        found = bench.pearson(wanted, shown)
        law = math.exp(-(sigma**2))
        law += (1 - law) / INPUTS  # of so many macropixels the errors do not average out
        yield resolved(f"flicker {sigma:g} rad, Pearson", found, law, 0.012, "exp(-sigma^2)")


def injective(effort: Effort) -> Iterator[Outcome]:  # noqa: ARG001
    """No two levels on [0, pi] show the same light; a whole turn is refused."""
    light = torch.polar(torch.ones(256, dtype=torch.float64), even_phases(256))
    apart = (light[:, None] - light).abs() + 2 * torch.eye(256)
    step = 2 * math.sin(math.pi / 255 / 2)
    yield Check(
        name="encoding on [0, pi], nearest levels apart",
        measured=apart.min().item(),
        expected=step,
        tolerance=1e-9,
        source="2 sin(step / 2)",
    )
    yield held("encoding on [0, 2 pi] refused", _refused(2 * even_phases(256)), "0 and 1 alias")


def parameter_shift(effort: Effort) -> Iterator[Outcome]:
    """Two shifted patterns give the derivative by every phase exactly."""
    matrix = gaussian_matrix(64, 32, effort.key).to(torch.complex128)
    phases = 2 * math.pi * torch.rand(32, generator=effort.key.torch(), dtype=torch.float64)

    def intensity(patterns_rad: Tensor) -> Tensor:
        return (_turned(patterns_rad) @ matrix.T).abs().square()

    parts = matrix.T * _turned(phases)[:, None]
    # d|E|^2 / d phi_n = 2 Re(E* i T_n e^(i phi_n)).
    exact = 2 * (parts.sum(0).conj() * 1j * parts).real
    for shift in (math.pi / 2, 0.3):
        found = shift_derivative(intensity, phases, shift)
        yield Check(
            name=f"parameter shift of {shift:.3g} rad, relative L2",
            measured=((found - exact).norm() / exact.norm()).item(),
            expected=0.0,
            tolerance=1e-10,
            source="derivative by hand",
            n=exact.numel(),
        )


class Bench:
    """A medium of 784 -> 4096 and random drives in [0, 1], (patterns, inputs)."""

    def __init__(self, effort: Effort) -> None:
        self._matrix = gaussian_matrix(PIXELS, INPUTS, effort.key.child("medium"))
        generator = effort.key.child("drive").torch()
        self.drive = torch.rand((effort.n(256, 208), INPUTS), generator=generator)

    def pearson(self, wanted: Tensor, shown: Tensor) -> Estimate:
        """Mean over patterns of the correlation over pixels."""
        first, second = ((light @ self._matrix.T).abs().square() for light in (wanted, shown))
        return estimates.mean(correlations(first, second))


def correlations(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's over pixels of each pair of frames (batch, pixels); (batch,), float64."""
    a, b = (f.double() - f.double().mean(1, keepdim=True) for f in (first, second))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def sinc(x: float) -> float:
    """sin(pi x) / (pi x)."""
    return math.sin(math.pi * x) / (math.pi * x)


def _turned(phases_rad: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(phases_rad), phases_rad)


def _refused(phases_rad: Tensor) -> bool:
    try:
        require_injective(phases_rad)
    except ConfigError:
        return True
    return False
