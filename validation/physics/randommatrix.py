"""Singular values of random matrices: the law of Marchenko and Pastur."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def edges(ratio: float) -> tuple[float, float]:
    """Smallest and largest singular value of an endless i.i.d. matrix.

    ratio: smaller over larger dimension, in (0, 1]. Entries have variance
    1 / larger dimension.
    """
    return 1 - math.sqrt(ratio), 1 + math.sqrt(ratio)


def density(s: Array, ratio: float) -> Array:
    """Marchenko and Pastur's density of singular values s, 1967."""
    low, high = edges(ratio)
    inside = np.clip((high**2 - s**2) * (s**2 - low**2), 0.0, None)
    return np.asarray(np.sqrt(inside) / (math.pi * ratio * np.maximum(s, 1e-12)))


def distribution(s: Array, ratio: float, points: int = 4001) -> Array:
    """Fraction of the singular values below s, by quadrature (error below 1e-6)."""
    low, high = edges(ratio)
    # In the angle the roots at both edges become smooth and the rule exact.
    angle = np.linspace(0.0, math.pi, points)
    grid = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    weight = density(grid, ratio) * (high - low) / 2 * np.sin(angle)
    steps = (weight[1:] + weight[:-1]) / 2 * np.diff(angle)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(s, grid, total / total[-1])


def singular_values(matrix: NDArray[np.complexfloating]) -> Array:
    """Of a matrix whose mean squared entry is taken as 1 / larger dimension, ascending."""
    a = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    power = float((np.abs(a) ** 2).mean()) * a.shape[0]
    gram = (a.conj().T @ a).astype(np.complex128) / power
    return np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))


def distance(s: Array, ratio: float) -> float:
    """Kolmogorov's distance of the singular values s, ascending, from the law."""
    law = distribution(s, ratio)
    n = len(s)
    above = np.arange(1, n + 1) / n - law
    return float(max(above.max(), (1 / n - above).max()))
