"""A transmission matrix fitted to intensities of random drives, pixel by pixel.

Phase retrieval with a known probe set. Drives in [0, pi] have a mean, so every pixel
sees its own reference wave and a linear regression already gives the row up to
noise; amplitude flow (gradient descent on the amplitudes, preconditioned by the
probes' covariance, with momentum) does the rest. A row's global phase is free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twin.errors import ConfigError, Unsupported
from twin.fence import Fence
from twin.key import Key
from validation.baselines.budget import Budget, CappedLedger
from validation.baselines.twins_optics import OpticalTwin

HELD_OUT = 200
"""Further passes, of drives that the fit does not see, for the twin's quality."""

PHASE = "twin"
"""The ledger's phase of probes."""

ROUNDS, STEPS, MOMENTUM = 12, 10, 0.8
"""A pixel flows for rounds of so many steps, until one gains it too little."""

ENOUGH, LATE = 0.97, 1.5
"""Of its error a round leaves a pixel less than this, or was its last, unless the error
is still so many times the median pixel's."""

FEW, FEWEST = 8, 1000
"""Probes per channel, at least so many in all, that do for the rounds; the last
round sees all."""

RIDGE = 0.02
"""Of the probes' mean power: a row is not larger than its measurements make it."""

OWN_CHECKS = 0.1
"""Share of the probes by which the fit decides when to stop."""


def fitted_twin(like: OpticalTwin, fence: Fence, probes: int, key: Key) -> OpticalTwin:
    """A twin whose matrix comes from `probes` passes of the device; everything but the
    matrix is as in `like`. Costs probes + HELD_OUT passes.

    Its notes tell the correlation of predicted and measured intensities on the
    held-out ones. Raises ConfigError if the budget has fewer passes.
    """
    if like.config.medium.kind != "file" and getattr(like.config.medium, "patterns", 1) > 1:
        raise Unsupported(
            f"{fence.name}: a pixel behind several incoherent patterns has no one row to fit. "
            "Use medium.patterns = 1, or a known twin."
        )
    _require_passes(fence, probes + HELD_OUT)
    drives = torch.rand((probes + HELD_OUT, like.config.inputs), generator=key.torch())
    drives = fence.drive_port.on_grid(drives)
    measured = fence.forward(drives, key=key.child("probe"), phase=PHASE).values
    matrix = fit_matrix(
        like.light(drives[:probes]), like.intensity(measured[:probes]), key.child("start")
    )
    twin = like.with_matrix(matrix)
    quality = correlation(twin.predict(drives[probes:]), measured[probes:])
    twin.notes = {"twin_correlation": quality}
    return twin


def fit_matrix(light: Tensor, intensity: Tensor, key: Key) -> Tensor:
    """T (pixels, channels) such that |T light|^2 is the intensity, as nearly as can be.

    light: (probes, channels), complex64. intensity: (probes, pixels), may be noisy.
    """
    own = max(1, round(OWN_CHECKS * len(light)))
    train, seen = light[own:], intensity[own:].clamp_min(0).sqrt()
    check, checked = light[:own], intensity[:own].clamp_min(0).sqrt()

    def error(rows: Tensor, pixels: Tensor) -> Tensor:
        return ((check @ rows).abs() - checked[:, pixels]).square().sum(0)

    best = _regressed(train, intensity[own:], key)
    moving = torch.arange(best.shape[1])
    least = error(best, moving)
    few = min(len(train), max(FEW * light.shape[1], FEWEST))
    flow = _Flow(train[:few], seen[:few], best)
    for _ in range(ROUNDS):
        off = error(flow.round(), moving)
        gained, better = off < ENOUGH * least[moving], off < least[moving]
        best[:, moving[better]] = flow.rows[:, better]
        least[moving[better]] = off[better]
        # A pixel with a weak reference wave stays level for long before it falls.
        gained |= least[moving] > LATE * least.median()
        moving = moving[gained]
        if not len(moving):
            break
        flow.keep(gained)
    if few < len(train):
        found = _Flow(train, seen, best).round()
        better = error(found, torch.arange(len(least))) < least
        best = torch.where(better, found, best)
    return best.t().contiguous()


class _Flow:
    """Amplitude flow of all pixels at once; rows: (channels, pixels)."""

    def __init__(self, light: Tensor, amplitude: Tensor, rows: Tensor) -> None:
        self._light, self._amplitude, self.rows = light, amplitude, rows
        self._velocity = torch.zeros_like(rows)
        gram = light.mH @ light
        ridge = RIDGE * float(gram.diagonal().real.mean())
        self._factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram)))

    def round(self) -> Tensor:
        """The rows after STEPS more steps."""
        for _ in range(STEPS):
            field = self._light @ (self.rows + MOMENTUM * self._velocity)
            off = (self._amplitude - field.abs()) * torch.sgn(field)
            change = torch.cholesky_solve(self._light.mH @ off, self._factor)
            self._velocity = MOMENTUM * self._velocity + change
            self.rows = self.rows + self._velocity
        return self.rows

    def keep(self, pixels: Tensor) -> None:
        """Go on with some of them, (pixels,) of truth values."""
        self._amplitude = self._amplitude[:, pixels]
        self.rows, self._velocity = self.rows[:, pixels], self._velocity[:, pixels]


def _regressed(light: Tensor, intensity: Tensor, key: Key) -> Tensor:
    """First guess, (channels, pixels): the reference wave's interference, by ridge regression.

    I = |m|^2 + 2 Re(m* F) + |F|^2 with m the mean field of a pixel and F = sum t_j f_j
    the rest: the slopes on Re f_j and Im f_j are 2 Re(m* t_j) and -2 Im(m* t_j).
    """
    mean = light.mean(0)
    moved = light - mean
    both = torch.cat([moved.real, moved.imag], 1)
    target = intensity - intensity.mean(0)
    gram = both.t() @ both
    ridge = 2.0 * both.shape[1] / len(both) * float(gram.diagonal().mean()) * 0.5
    slopes = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), both.t() @ target)
    real, imaginary = slopes.split(light.shape[1])
    rows = torch.complex(real, -imaginary)
    # Where there was no reference wave: any start of the right size.
    parts = torch.randn((2, *rows.shape), generator=key.torch())
    rows = rows + 1e-3 * rows.abs().mean() * torch.complex(parts[0], parts[1])
    power = (light @ rows).abs().square().mean(0).clamp_min(1e-12)
    return rows * (intensity.mean(0).clamp_min(0) / power).sqrt()


def correlation(predicted: Tensor, measured: Tensor) -> float:
    """Pearson's, of all pixels of all probes about each pixel's mean, in [-1, 1]."""
    a, b = predicted - predicted.mean(0), measured - measured.mean(0)
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def _require_passes(fence: Fence, passes: int) -> None:
    ceiling = fence.ledger.ceiling if isinstance(fence.ledger, CappedLedger) else None
    left = Budget(fence.ledger, ceiling).left
    if left is not None and left < passes:
        raise ConfigError(
            f"{fence.name}: fitting a twin takes {passes} passes, but only {left} are left of "
            f"{ceiling}. Use fewer compare.twin_probes or raise compare.passes_per_image."
        )
