"""A quantity known at several targets as the lowest polynomial that is not rejected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LARGEST_DEGREE = 3
REJECTED = 0.05
"""A polynomial whose chi-square leaves less than this is too simple."""


@dataclass(frozen=True)
class Smooth:
    """values and errors at the targets; coefficients (ascending powers) and their
    errors in the targets' unit, None where no polynomial would do and the values
    stand for themselves. p_value: of the chi-square test of the polynomial.
    raw, raw_errors: before smoothing.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    coefficients: NDArray[np.float64] | None
    coefficient_errors: NDArray[np.float64] | None
    p_value: float | None
    raw: NDArray[np.float64]
    raw_errors: NDArray[np.float64]


def smoothed(
    x: NDArray[np.float64],
    value: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    spread: bool,
) -> Smooth:
    """The polynomial of lowest degree through (x, value), generalised least squares.

    x: (P,) ascending. covariance: (P, P) of value. spread: standard deviations,
    whose errors grow with themselves; weights then follow the fitted values, or
    too small estimates would count too much. Results are never negative.
    """
    value = np.abs(value) if spread else value
    raw_errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    for degree in range(min(LARGEST_DEGREE, len(x) - 2) + 1):
        c, c_covariance, p_value = _polynomial(x, value, covariance, degree, spread)
        grid = np.linspace(x[0], x[-1], 257)
        if p_value > REJECTED and np.polynomial.polynomial.polyval(grid, c).min() >= 0:
            powers = np.vander(x, degree + 1, increasing=True)
            error = np.sqrt(np.einsum("pi,ij,pj->p", powers, c_covariance, powers))
            c_error = np.sqrt(np.diag(c_covariance))
            return Smooth(powers @ c, error, c, c_error, p_value, value, raw_errors)
    return Smooth(np.maximum(value, 0), raw_errors, None, None, None, value, raw_errors)


def _polynomial(
    x: NDArray[np.float64],
    value: NDArray[np.float64],
    covariance: NDArray[np.float64],
    degree: int,
    spread: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(coefficients, their covariance, p-value)."""
    top = x[-1]
    powers = np.vander(x / top, degree + 1, increasing=True)
    weights = covariance
    for _ in range(4 if spread else 1):
        inverse = np.linalg.pinv(weights, hermitian=True)
        of_c = np.linalg.inv(powers.T @ inverse @ powers)
        c = of_c @ powers.T @ inverse @ value
        fitted = powers @ c
        ratio = np.clip(fitted / np.maximum(value, 1e-300), 0.2, 5.0) if spread else np.ones(len(x))
        weights = covariance * np.outer(ratio, ratio)
    chi = float((value - fitted) @ np.linalg.pinv(weights, hermitian=True) @ (value - fitted))
    units = top ** -np.arange(degree + 1.0)
    p_value = float(stats.chi2.sf(chi, len(x) - degree - 1))
    return c * units, of_c * np.outer(units, units), p_value
