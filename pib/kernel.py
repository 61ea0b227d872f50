"""Gaussian kernels of features, and the way of a gradient back through them.

Equations and their checks: docs/pib.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def gaussian_gram(points: Tensor, sigma: float) -> Tensor:
    """K_ij = exp(-|u_i - u_j|^2 / (2 sigma^2)), (n, n), for points (n, d)."""
    squares = (points * points).sum(1)
    # -d^2/2 = u.v - |u|^2/2 - |v|^2/2; rounding can leave it above zero.
    half = torch.addmm(squares[None, :] + squares[:, None], points, points.T, beta=-0.5)
    gram = half.clamp_max_(0.0).div_(sigma**2).exp_()
    gram.fill_diagonal_(1.0)
    return gram


def standardised(features: Tensor) -> tuple[Tensor, Undo]:
    """Centred per batch, scaled so that mean |u|^2 = 1; and the way back."""
    centred = features - features.mean(0)
    scale = float((centred * centred).sum(1).mean().clamp_min(1e-12).sqrt())
    return centred / scale, Undo(centred / scale, scale)


@dataclass(frozen=True)
class Undo:
    """Carries a gradient at the standardised points back to the features."""

    points: Tensor
    scale: float

    def __call__(self, gradient: Tensor) -> Tensor:
        along = float((gradient * self.points).sum()) / len(self.points)
        at_centred = (gradient - self.points * along) / self.scale
        return at_centred - at_centred.mean(0)


def through_gram(slope: Tensor, gram: Tensor, points: Tensor, sigma: float) -> Tensor:
    """d loss / d points from d loss / d K: -(2 / sigma^2) (diag(M 1) - M) u."""
    weighted = slope * gram
    pull = weighted.sum(1, keepdim=True) * points - weighted @ points
    return pull * (-2.0 / sigma**2)
