"""Matrices of prescribed singular values between random unitaries.

Transmissions tau are power transmissions of eigenchannels, in [0, 1].
"""

from __future__ import annotations

import math

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from twin.key import Key

FINE = 20_001


def marchenko_pastur(count: int, ratio: float) -> np.ndarray:
    """`count` evenly spaced quantiles of squared singular values, mean 1, falling.

    ratio: of the shorter to the longer side, in (0, 1]. Of a Gaussian matrix
    whose entries have variance 1 / longer side: density
    sqrt((b - x)(x - a)) / (2 pi ratio x) between a, b = (1 -+ sqrt(ratio))^2.
    """
    levels = (np.arange(count, 0, -1) - 0.5) / count
    angle = np.linspace(np.pi, 0, FINE)
    return 1 + ratio + 2 * math.sqrt(ratio) * np.cos(np.interp(levels, _mass(angle, ratio), angle))


def marchenko_pastur_cdf(squared: np.ndarray, ratio: float) -> np.ndarray:
    """Fraction of squared singular values below `squared`, the law above."""
    angle = np.linspace(np.pi, 0, FINE)
    cosine = np.clip((squared - 1 - ratio) / (2 * math.sqrt(ratio)), -1, 1)
    # From pi down: interp wants a rising axis.
    return np.interp(-np.arccos(cosine), -angle, _mass(angle, ratio))


def _mass(angle: np.ndarray, ratio: float) -> np.ndarray:
    """Distribution function at x = 1 + ratio + 2 sqrt(ratio) cos(angle), angle from pi down.

    In the angle the density is smooth: 2 sin^2 / (pi x).
    """
    x = 1 + ratio + 2 * math.sqrt(ratio) * np.cos(angle)
    # At ratio 1, angle pi both vanish: sin^2 / x is 1 there, in the limit.
    density = np.divide(np.sin(angle) ** 2, x, out=np.ones_like(x), where=x > 1e-12)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return mass / mass[-1]


def open_length(mean: float) -> float:
    """X with tanh(X) / X = mean: thickness over localisation scale, mean in (0, 1)."""
    return float(scipy.optimize.brentq(lambda x: math.tanh(x) - mean * x, 1e-9, 2 / mean))


def bimodal(count: int, mean: float) -> np.ndarray:
    """`count` evenly spaced transmissions of a diffusive slab, mean `mean`, falling.

    tau = 1 / cosh^2(x), x uniform on [0, X]: density mean / (2 tau sqrt(1 - tau))
    above a cut-off (Dorokhov, Mello, Pereyra and Kumar; form assumed).
    """
    x = open_length(mean) * (np.arange(count) + 0.5) / count
    return 1 / np.cosh(x) ** 2


def bimodal_above(level: float, mean: float) -> float:
    """Fraction of eigenchannels that transmit more than `level`."""
    return min(1.0, math.acosh(1 / math.sqrt(level)) / open_length(mean))


def between_unitaries(singular: np.ndarray, pixels: int, channels: int, key: Key) -> Tensor:
    """U diag(singular) V^H cut to (pixels, channels), complex64.

    U, V: columns of random unitary matrices of max(pixels, modes) and
    max(channels, modes) rows, modes = len(singular): the cut is what is left
    to whoever controls or sees a part of the modes only.
    """
    modes = len(singular)
    left = _unitary(max(pixels, modes), modes, key.child("left"))[:pixels]
    right = _unitary(max(channels, modes), modes, key.child("right"))[:channels]
    return (left * torch.from_numpy(singular).to(torch.float32)) @ right.mH


def _unitary(rows: int, columns: int, key: Key) -> Tensor:
    """(rows, columns), columns <= rows: columns of a Haar-random unitary matrix."""
    parts = torch.randn((rows, columns, 2), generator=key.torch())
    q, r = torch.linalg.qr(torch.view_as_complex(parts))
    # Without these phases the factor of a QR is not Haar distributed (Mezzadri 2007).
    return q * torch.sgn(r.diagonal())
