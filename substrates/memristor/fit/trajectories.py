"""Likelihood of cells' readings under a relaxation law, in microsiemens and ln t.

A cell's readings are jointly Gaussian given its own read-noise level: a mean
trajectory, two random numbers (where the write left it, how it relaxes) and
independent read noise relative to its conductance. The level is log-normal
over cells and integrated out. Tensors are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from substrates.memristor.fit.measurements import Measurements

UNIT_SIEMENS = 1e-6
NODES = 12
SMALLEST = 1e-4
"""Of a cell's mean: least scale of relative noise, so that a cell that has
relaxed to nothing keeps a finite likelihood."""

LARGEST_EXPONENT = 0.5
GAUSS_NEWTON = 8


@dataclass(frozen=True)
class Cells:
    """Measurements as tensors.

    target (C,) and g (C, K): uS. level: index of the target (C,). log_t:
    ln(t / first), (C, K). scale: the cell's own smooth trajectory (uS), to which
    noise is relative. taken: 1 or 0. spread (C,): mean square of the relative
    residuals about that trajectory. power: each cell's own conductance at the
    first time (uS) and exponent, (C, 2), by least squares.
    """

    target: Tensor
    level: Tensor
    log_t: Tensor
    g: Tensor
    scale: Tensor
    taken: Tensor
    spread: Tensor
    power: Tensor

    @staticmethod
    def of(
        found: Measurements, levels: NDArray[np.float64] | None = None, first_s: float | None = None
    ) -> Cells:
        """levels, first_s: of the fit these cells are compared with; None: their own."""
        levels = found.levels if levels is None else levels
        taken = found.taken.astype(np.float64)
        log_t = np.log(found.time_s / (first_s or found.first_s))
        g = found.conductance / UNIT_SIEMENS
        scale, spread = _smooth(log_t, g, taken)
        power = _own_powers(log_t, g, scale, taken / scale**2)
        arrays = (found.target / UNIT_SIEMENS, log_t, g, scale, taken, spread, power)
        target, *rest = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
        level = torch.from_numpy(np.searchsorted(levels, found.target))
        return Cells(target, level, *rest)

    @property
    def readings(self) -> int:
        return int(self.taken.sum())


def _smooth(
    log_t: NDArray[np.float64], g: NDArray[np.float64], taken: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each cell's least-squares line in ln t: values and mean square.

    The square is relative to the line. Two passes, the second weighted.
    """
    n = taken.sum(1, keepdims=True)
    mean = (taken * g).sum(1, keepdims=True) / n
    floor = np.maximum(SMALLEST * mean, 1e-9)
    line, weight = mean, taken
    for _ in range(2):
        w = weight.sum(1, keepdims=True)
        x = log_t - (weight * log_t).sum(1, keepdims=True) / w
        centre = (weight * g).sum(1, keepdims=True) / w
        slope = (weight * x * g).sum(1, keepdims=True) / (weight * x * x).sum(1, keepdims=True)
        line = np.maximum(centre + slope * x, np.maximum(0.05 * mean, floor))
        weight = taken / line**2
    dof = np.maximum(n[:, 0] - 2, 1)
    square = (taken * ((g - line) / line) ** 2).sum(1) / dof
    return line, np.maximum(square, 1e-12)


def _own_powers(
    log_t: NDArray[np.float64],
    g: NDArray[np.float64],
    line: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weighted least squares of g0 exp(-nu ln t) to each cell, (C, 2)."""
    # The line has no reading at zero, whose logarithm would spoil the start.
    x = log_t - (weight * log_t).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
    nu = -(weight * x * np.log(line)).sum(1) / (weight * x * x).sum(1)
    nu = np.clip(nu, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    for _ in range(GAUSS_NEWTON):
        decay = np.exp(-nu[:, None] * log_t)
        start = (weight * g * decay).sum(1) / (weight * decay**2).sum(1)
        slope = -log_t * decay * start[:, None]
        # Of the exponent alone, start following it (variable projection).
        slope -= decay * ((weight * slope * decay).sum(1) / (weight * decay**2).sum(1))[:, None]
        residual = g - start[:, None] * decay
        size = np.maximum((weight * slope**2).sum(1), 1e-12)
        step = (weight * slope * residual).sum(1) / size
        nu = np.clip(nu + np.clip(step, -0.1, 0.1), -LARGEST_EXPONENT, LARGEST_EXPONENT)
    return np.stack([np.maximum(start, SMALLEST), nu], 1)


@dataclass(frozen=True)
class Shape:
    """A law at the readings of cells, all uS or uS per unit of a random number.

    mean, first, second: (C, K); the second random effect may be any function of
    time. covariance: (C, 3), of the two random numbers: 11, 12, 22.
    level: relative read noise, r.m.s. over cells; spread_ln of it over cells.
    """

    mean: Tensor
    first: Tensor
    second: Tensor
    covariance: Tensor
    level: Tensor
    spread_ln: Tensor


@dataclass(frozen=True)
class Sums:
    """Weighted inner products of residual and effects of each cell, (C,) each."""

    a11: Tensor
    a12: Tensor
    a22: Tensor
    b1: Tensor
    b2: Tensor
    q: Tensor
    n: Tensor
    log_scale: Tensor

    @staticmethod
    def of(shape: Shape, cells: Cells) -> Sums:
        w = cells.taken / cells.scale.square()
        r, u, v = cells.g - shape.mean, shape.first, shape.second
        pairs = ((u, u), (u, v), (v, v), (u, r), (v, r), (r, r))
        log_scale = 2 * (cells.taken * cells.scale.log()).sum(1)
        a11, a12, a22, b1, b2, q = [(w * a * b).sum(1) for a, b in pairs]
        return Sums(a11, a12, a22, b1, b2, q, cells.taken.sum(1), log_scale)

    def quadratic(self, covariance: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """r' V^-1 r and ln det V at relative noise `variance`, broadcast over cells last.

        By Woodbury with 2 x 2 matrices in closed form; a singular covariance
        is no trouble. V in uS^2.
        """
        c11, c12, c22 = covariance.unbind(-1)
        p11, p12, p22 = self.a11 / variance, self.a12 / variance, self.a22 / variance
        det_c, det_p = c11 * c22 - c12.square(), p11 * p22 - p12.square()
        det = 1 + c11 * p11 + 2 * c12 * p12 + c22 * p22 + det_c * det_p
        # (covariance^-1 + P)^-1 = (covariance + det(covariance) adj(P)) / det
        m11, m12, m22 = c11 + det_c * p22, c12 - det_c * p12, c22 + det_c * p11
        b1, b2 = self.b1 / variance, self.b2 / variance
        explained = (m11 * b1.square() + 2 * m12 * b1 * b2 + m22 * b2.square()) / det
        log_det = self.n * variance.log() + self.log_scale + det.log()
        return self.q / variance - explained, log_det

    def own(self) -> Tensor:
        """(q - b' A^-1 b): squares about each cell's own best trajectory, (C,)."""
        det = self.a11 * self.a22 - self.a12.square()
        fitted = (
            self.a22 * self.b1.square() - 2 * self.a12 * self.b1 * self.b2
            + self.a11 * self.b2.square()
        )  # fmt: skip
        return self.q - fitted / det


def log_likelihood(shape: Shape, cells: Cells) -> Tensor:
    """ln of the density of each cell's readings, nats, in uS^-n, (C,)."""
    sums = Sums.of(shape, cells)
    z, log_weight = _nodes(shape, sums)
    # E[factor^2] = 1, as in the technology's read noise.
    log_variance = 2 * (shape.level.log() + shape.spread_ln * z - shape.spread_ln.square())
    square, log_det = sums.quadratic(shape.covariance, log_variance.exp())
    each = -(square + log_det + sums.n * math.log(2 * math.pi)) / 2
    return torch.logsumexp(each + log_weight, 0)


def _nodes(shape: Shape, sums: Sums) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes about each cell's likely noise level, (NODES, C), and ln weights.

    Adaptive, because many readings make the integrand far narrower than the prior.
    """
    x, weight = np.polynomial.hermite_e.hermegauss(NODES)
    node = torch.from_numpy(x)[:, None]
    log_w = torch.from_numpy(np.log(weight / math.sqrt(2 * math.pi)))[:, None]
    t, dof = shape.spread_ln, (sums.n - 2).clamp(min=1)
    spread = (sums.own() / dof).clamp(min=1e-12)
    # About ln v of the cell: likelihood of precision dof / 2, prior of slope 2 t in z.
    precision = 1 + 2 * t.square() * dof
    excess = spread.log() - 2 * shape.level.log() + 2 * t.square()
    z = t * dof * excess / precision + node / precision.sqrt()
    return z, log_w + (node.square() - z.square()) / 2 - precision.log() / 2
