"""How conductances scatter about a mean: Gaussian, or with log-logistic tails.

Every function maps one N(0, 1) number per cell, so a cell keeps its place in
the distribution whatever mean and sigma become of it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Tails = Literal["gaussian", "log-logistic"]

LARGEST_RATIO = 1.0
"""Largest sigma / mean of a log-logistic spread; beyond, sigma is limited."""

_NEWTON_STEPS = 5
_SMALL = 1e-3


def scattered(mean: Tensor, sigma: Tensor | float, normals: Tensor, tails: Tails) -> Tensor:
    """Conductances with this mean and sigma, never negative; all in siemens.

    normals: N(0, 1), the shape of mean. Gaussian values below 0 are set to 0,
    which raises the mean where sigma is not small against it.
    """
    if tails == "gaussian":
        return (mean + sigma * normals).clamp(min=0)
    return log_logistic(mean, torch.as_tensor(sigma), normals)


def logistic(normals: Tensor) -> Tensor:
    """Standard logistic numbers, mean 0 and variance 1, from N(0, 1) ones."""
    return _logit(normals) * (math.sqrt(3) / math.pi)


def log_logistic(mean: Tensor, sigma: Tensor, normals: Tensor) -> Tensor:
    """Log-logistic conductances of given mean and sigma, siemens, positive.

    ln G is logistic. With b its shape and q = pi / b the moments are
    mean = scale q / sin q and sigma^2 / mean^2 = tan(q) / q - 1. Where sigma
    exceeds the mean it is limited to the mean. Source of the form: Maldonado
    et al., Mater. Sci. Semicond. Process. 196, 109668 (2025), HfO2.
    """
    m = mean.to(torch.float64).clamp(min=0)
    ratio = (sigma.to(torch.float64) / m.clamp(min=1e-30)).clamp(max=LARGEST_RATIO)
    q = _angle(ratio)
    scale = m * torch.sinc(q / math.pi)
    return (scale * torch.exp(_logit(normals) * (q / math.pi))).to(mean.dtype)


def _logit(normals: Tensor) -> Tensor:
    """ln(u / (1 - u)) of u = Phi(n), accurate in both tails, float64."""
    n = normals.to(torch.float64)
    return torch.special.log_ndtr(n) - torch.special.log_ndtr(-n)


def _angle(ratio: Tensor) -> Tensor:
    """q in [0, pi / 2) with tan(q) / q - 1 = ratio^2; ratio at most 1."""
    # f = sin q - (1 + r^2) q cos q has no pole, unlike the tangent, and Newton
    # falls to its root from above, since tan(q) / q > 1 + q^2 / 3.
    one = 1 + ratio.square()
    q = (ratio * math.sqrt(3)).clamp(_SMALL, 1.3)
    for _ in range(_NEWTON_STEPS):
        f = q.sin() - one * q * q.cos()
        q = (q - f / (q.cos() * (1 - one) + one * q * q.sin())).clamp(_SMALL / 2, 1.3)
    # f is lost in rounding where q is small; there q is sqrt(3) ratio to 1e-6.
    return torch.where(ratio < _SMALL, ratio * math.sqrt(3), q)
