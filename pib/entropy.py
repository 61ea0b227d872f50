"""Matrix-based Rényi entropy of Gram matrices, in bits, with its gradient.

``H_alpha(A) = log2(tr A^alpha) / (1 - alpha)`` for a symmetric, positive
semi-definite A of trace one (Sanchez Giraldo, Rao and Principe, IEEE Trans.
Inf. Theory 61, 535, 2015). No automatic differentiation is used anywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LN2 = math.log(2.0)
VON_NEUMANN_WIDTH = 1e-3
"""Within this distance of alpha = 1 the limit -tr(A log2 A) is used: there
rounding grows like 1 / |1 - alpha| and exceeds the error of the limit."""


def entropy(matrix: Tensor, alpha: float) -> float:
    """H_alpha of one (n, n) matrix of trace one, in bits.

    alpha > 0; alpha = 2 needs no eigenvalues, alpha near 1 is the limit. Below
    0.3, float32 is wrong for matrices of low rank (of 2 at 0.2: by 0.6 bit).
    """
    if alpha == 2:
        return -math.log2(float((matrix * matrix).sum()))
    return _value(torch.linalg.eigvalsh(_precise(matrix, alpha)), alpha)


def entropy_and_gradient(matrix: Tensor, alpha: float) -> tuple[float, Tensor]:
    """H_alpha and dH/dA of a matrix (n, n) or of its diagonal blocks (c, m, m).

    Blocks stand for the block-diagonal matrix whose total trace is one; its
    spectrum costs c m^3 instead of (c m)^3.
    """
    if alpha == 2:
        purity = float((matrix * matrix).sum())
        return -math.log2(purity), matrix * (-2 / (purity * LN2))
    values, vectors = torch.linalg.eigh(_precise(matrix, alpha))
    slope = _slope(values, alpha)
    gradient = (vectors * slope.unsqueeze(-2)) @ vectors.mT
    return _value(values, alpha), gradient.to(matrix.dtype)


def class_entropy(counts: Tensor, alpha: float) -> float:
    """H_alpha of the label matrix, from the class counts alone, in bits.

    The matrix 1[y_i = y_j] / n has the eigenvalues n_c / n.
    """
    return _value(counts[counts > 0].to(torch.float64) / counts.sum(), alpha)


def _precise(matrix: Tensor, alpha: float) -> Tensor:
    """Near alpha = 1 rounding is multiplied by 1 / |1 - alpha|: use float64."""
    return matrix.double() if abs(1 - alpha) < 0.1 else matrix


def _floor(values: Tensor) -> Tensor:
    """Eigenvalues kept off zero. Their gradient is kept too: clamping it away
    turns the direction, since a large common part must cancel over all."""
    return values.clamp_min(1e-10 if values.dtype == torch.float64 else 1e-9)


def _value(values: Tensor, alpha: float) -> float:
    values = _floor(values.double())
    if abs(1 - alpha) < VON_NEUMANN_WIDTH:
        return -float((values * values.log2()).sum())
    return math.log2(float((values**alpha).sum())) / (1 - alpha)


def _slope(values: Tensor, alpha: float) -> Tensor:
    """dH/d(eigenvalue), the shape of `values`."""
    values = _floor(values)
    if abs(1 - alpha) < VON_NEUMANN_WIDTH:
        return -(values.log() + 1) / LN2
    return (alpha / ((1 - alpha) * LN2)) * values ** (alpha - 1) / (values**alpha).sum()
