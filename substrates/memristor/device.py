"""One memristor cell: window, write error, relaxation, read noise.

Functions of tensors of conductances in siemens; a differential pair is the
first axis, G+ then G-. Nothing here knows of keys' owners, tiles or converters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

T0_S = 1.0
"""Time after the write at which programmed conductances are quoted, seconds."""

LOG_STEP = 1e-3
"""ln(age / t0) moves in steps of this size, so that a matrix need not be
recomputed for every pass. A cell is thereby off by at most LOG_STEP times its
own slope, about 1e-6 of the window with the default relaxation."""


def pair_targets(weights: Tensor, g_min: float, g_max: float) -> Tensor:
    """Target conductances (2, *weights.shape) of signed weights in [-1, 1].

    G+ = g_min + max(w, 0) (g_max - g_min), G- the same with -w, siemens.
    """
    targets = weights.new_empty((2, *weights.shape))
    torch.clamp(weights, 0, 1, out=targets[0])
    torch.clamp(weights, -1, 0, out=targets[1]).neg_()
    return targets.mul_(g_max - g_min).add_(g_min)


def written_(targets: Tensor, normals: Tensor, sigma: float) -> Tensor:
    """What a write leaves in the cells: target + sigma N(0, 1), never negative.

    targets, normals: same shape; sigma: siemens. Overwrites `normals`.
    Gaussian and independent of the state; state-dependent tables differ by
    technology (see the reference of each preset).
    """
    return torch.add(targets, normals, alpha=sigma, out=normals).clamp_(min=0)


def log_age(age_s: float) -> float:
    """ln(age / t0) on a grid of LOG_STEP; 0 before t0, where there is no data."""
    if age_s <= T0_S:
        return 0.0
    # The tiny shift keeps an age that is a grid point up to rounding on it.
    return math.floor(math.log(age_s / T0_S) / LOG_STEP + 1e-6) * LOG_STEP


def relaxed(g: Tensor, slopes: Tensor, log_t: float, mean: float, spread: float) -> Tensor:
    """Conductance after ln(age / t0) = log_t: g - (mean - spread n) log_t, >= 0.

    g: siemens at t0. slopes: n, N(0, 1), one per cell and write, so each cell
    has one trajectory. mean, spread: siemens per unit of ln t.
    Law: CMO/HfOx 1T1R, Falcone et al. 2025 (arXiv 2502.04524), fitted at
    50 uS from 1 s to days, found independent of G.
    """
    return (slopes * (spread * log_t)).add_(g).sub_(mean * log_t).clamp_(min=0)


def read_variance(g: Tensor, relative: float) -> Tensor:
    """Variance of G+ - G- of each pair in one shot, siemens^2, (inputs, outputs).

    g: (2, inputs, outputs). relative: sigma_G / G, independent over cells and
    shots. A column's current then has variance sum_i V_i^2 of this, exactly.
    """
    return torch.square(g[0]).addcmul_(g[1], g[1]).mul_(relative**2)


def per_cell_currents(
    volts: Tensor, g: Tensor, relative: float, generator: torch.Generator
) -> Tensor:
    """Currents (batch, outputs), amperes, redrawing every cell for every sample.

    The slow oracle of the exact-variance path: memory is batch x cells.
    """
    shape = (len(volts), *g.shape)
    noisy = g * (1 + relative * torch.randn(shape, generator=generator, device=g.device))
    return torch.einsum("bi,bio->bo", volts, noisy[:, 0] - noisy[:, 1])
