"""The plain laws of a cell, without a technology: write error, relaxation, read noise.

Functions of tensors of conductances in siemens; a differential pair is the
first axis, G+ then G-. Nothing here knows of keys' owners, tiles or converters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from substrates.memristor.seconds import Seconds

T0_S = 1.0
"""Time after the write at which programmed conductances are quoted, seconds."""

LOG_STEP = 1e-3
"""ln(age / t0) moves in steps of this size, so that a matrix need not be
recomputed for every pass. A cell is thereby off by at most LOG_STEP times its
own slope, about 1e-6 of the window with the default relaxation."""


def written_(targets: Tensor, normals: Tensor, sigma: float | Tensor) -> Tensor:
    """What a write leaves in the cells: target + sigma N(0, 1), never negative.

    targets, normals: same shape; sigma: siemens, one or one per cell.
    Overwrites `normals`.
    """
    return normals.mul_(sigma).add_(targets).clamp_(min=0)


def age_on_grid(age_s: float, first_s: float = T0_S) -> float:
    """`age_s` on a grid of LOG_STEP in ln(age / first_s); first_s for all before it."""
    if age_s <= first_s:
        return first_s
    # The tiny shift keeps an age that is a grid point up to rounding on it.
    return first_s * math.exp(math.floor(math.log(age_s / first_s) / LOG_STEP + 1e-6) * LOG_STEP)


def relaxed(g: Tensor, slopes: Tensor, log_t: Seconds, mean: float, spread: float) -> Tensor:
    """Conductance after ln(age / t0) = log_t: g - (mean - spread n) log_t, >= 0.

    g: siemens at t0. slopes: n, N(0, 1), one per cell and write, so each cell
    has one trajectory. mean, spread: siemens per unit of ln t.
    Law: CMO/HfOx 1T1R, Falcone et al. 2025 (arXiv 2502.04524), fitted at
    50 uS from 1 s to days, found independent of G.
    """
    return (slopes * (spread * log_t)).add_(g).sub_(mean * log_t).clamp_(min=0)


def per_cell_currents(
    volts: Tensor, g: Tensor, relative: float, generator: torch.Generator
) -> Tensor:
    """Currents (batch, outputs), amperes, redrawing every cell for every sample.

    The slow oracle of the exact-variance path: memory is batch x cells.
    """
    shape = (len(volts), *g.shape)
    noisy = g * (1 + relative * torch.randn(shape, generator=generator, device=g.device))
    return torch.einsum("bi,bio->bo", volts, noisy[:, 0] - noisy[:, 1])
