"""The two solvers of calibration: weighted linear regression, and bounded least squares.

Both return standard errors and name the directions that the measurements leave open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from twin.errors import DataError
from twin.twinmodel import Direction, Floats, Parameter

OPEN = 1e-7
"""Singular values below this share of the largest, of the scaled Jacobian, are zero."""

SHOWN = 0.1
"""Smallest share of a parameter in a direction that is named."""

MOST_NAMED = 4


@dataclass(frozen=True)
class LinearFit:
    """coefficients, errors: (terms, columns); errors are NaN where a term is open.
    with_last: (terms, columns), covariance of each term with the last one. leverage:
    (n, columns), what the fit takes off a residual's variance."""

    coefficients: Floats
    errors: Floats
    with_last: Floats
    leverage: Floats
    unidentified: tuple[Direction, ...]


@dataclass(frozen=True)
class CurveFit:
    """values: (k,). covariance: (k, k), NaN for parameters of an open direction."""

    values: Floats
    covariance: Floats
    unidentified: tuple[Direction, ...]

    @property
    def errors(self) -> Floats:
        return np.sqrt(np.diag(self.covariance))


def linear(
    design: Floats,
    response: Floats,
    weight: Floats,
    names: Sequence[str],
    *,
    noise: Floats | None = None,
) -> LinearFit:
    """response[:, c] = design @ coefficients[:, c], weighted, each column by itself.

    design: (n, terms). response: (n, columns). weight: (n, columns), >= 0, 0 leaves a
    value out. noise: variances, (n, columns), that the errors assume; None: what is
    left over, spread as 1 / weight. Open directions get the smallest solution.
    """
    if not len(design):
        raise DataError("a linear fit got no measurements. Record more passes.")
    scale = np.sqrt((design**2).mean(0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = design / scale
    columns = response.shape[1]
    coefficients, errors, with_last = np.zeros((3, design.shape[1], columns))
    leverage = np.zeros_like(response)
    found: dict[str, Direction] = {}
    same = columns > 0 and bool((weight == weight[:, :1]).all())
    inverse, open_space = _inverse(scaled, weight[:, 0]) if same else (None, None)
    for c in range(columns):
        if not same:
            inverse, open_space = _inverse(scaled, weight[:, c])
        assert inverse is not None and open_space is not None
        w = weight[:, c]
        beta = inverse @ (scaled.T @ (w * response[:, c]))
        left = response[:, c] - scaled @ beta
        hat = scaled @ inverse
        leverage[:, c] = w * (hat * scaled).sum(1)
        covariance = _covariance(inverse, hat, w, left, None if noise is None else noise[:, c])
        bad = (open_space**2).sum(1) > SHOWN**2
        coefficients[:, c] = beta / scale
        errors[:, c] = np.where(bad, np.nan, np.sqrt(np.diag(covariance)) / scale)
        with_last[:, c] = covariance[:, -1] / scale / scale[-1]
        for vector in open_space.T:
            direction = named(vector, names, "no drive in the recording tells them apart")
            found.setdefault(str(direction), direction)
    return LinearFit(coefficients, errors, with_last, leverage, tuple(found.values()))


def _inverse(scaled: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Pseudo-inverse of the weighted Gram matrix, and its null space (terms, k)."""
    gram = scaled.T @ (scaled * weight[:, None])
    power, vectors = np.linalg.eigh(gram)
    # The Gram matrix holds squares: what is OPEN of the design is rounding here.
    keep = power > max(float(power[-1]), 1e-300) * max(OPEN**2, len(power) * 1e-14)
    kept = vectors[:, keep]
    return (kept / power[keep]) @ kept.T, vectors[:, ~keep]


def _covariance(
    inverse: Floats, hat: Floats, weight: Floats, left: Floats, noise: Floats | None
) -> Floats:
    """Covariance of the coefficients of one column, in scaled terms."""
    if noise is not None:
        spread = hat * (weight * np.sqrt(noise))[:, None]
        return np.asarray(spread.T @ spread)
    freedom = max(1, int((weight > 0).sum()) - inverse.shape[0])
    return inverse * float((weight * left**2).sum()) / freedom


def curve(
    parameters: Sequence[Parameter],
    residuals: Callable[[Floats], Floats],
    start: npt.ArrayLike,
    *,
    scale: npt.ArrayLike,
    loss: Literal["linear", "soft_l1", "huber"] = "linear",
    in_sigmas: bool = True,
) -> CurveFit:
    """scipy's least_squares within the bounds of scalar `parameters`.

    residuals: of parameters (k,) to (n,). scale: typical size of each. in_sigmas: the
    residuals are in units of their standard deviation; else the covariance is scaled
    by what is left over. Directions that change no residual are named, and the
    covariance of the parameters in them is NaN.
    """
    from scipy.optimize import least_squares

    low = np.array([p.low for p in parameters])
    high = np.array([p.high for p in parameters])
    sizes = np.asarray(scale, np.float64)
    began = np.clip(np.asarray(start, np.float64), low, high)
    found = least_squares(
        residuals, began, bounds=(low, high), x_scale=sizes, loss=loss, method="trf"
    )
    jacobian = np.asarray(found.jac, np.float64)
    if not (np.isfinite(found.x).all() and np.isfinite(jacobian).all()):
        raise DataError(
            f"the fit of {', '.join(p.name for p in parameters)} did not stay finite. "
            "Look for a broken device or record more passes."
        )
    _, singular, rotation = np.linalg.svd(jacobian * sizes, full_matrices=False)
    names = [p.name for p in parameters]
    keep = singular > OPEN * max(float(singular[0]), 1e-300)
    covariance = (rotation[keep].T / singular[keep] ** 2) @ rotation[keep]
    covariance *= sizes[:, None] * sizes
    if not in_sigmas:
        covariance *= 2 * found.cost / max(1, len(found.fun) - int(keep.sum()))
    missing = _missing(rotation, keep, len(names))
    why = "no measurement in the recording tells them apart"
    open_ = (missing**2).sum(0) > SHOWN**2
    covariance[open_] = covariance[:, open_] = np.nan
    return CurveFit(found.x, covariance, tuple(named(v, names, why) for v in missing))


def _missing(rotation: Floats, keep: npt.NDArray[np.bool_], count: int) -> Floats:
    """Directions that are open: of small singular value, or beyond the measurements."""
    if len(rotation) == count:
        return rotation[~keep]
    whole = np.linalg.svd(rotation[keep], full_matrices=True)[2]
    return whole[int(keep.sum()) :]


def named(vector: Floats, names: Sequence[str], why: str) -> Direction:
    """The direction of a vector in scaled parameters, by its largest shares."""
    order = np.argsort(-np.abs(vector))
    shown = [i for i in order if abs(vector[i]) >= SHOWN][:MOST_NAMED]
    sign = 1.0 if not shown or vector[shown[0]] >= 0 else -1.0
    return Direction({names[i]: round(float(sign * vector[i]), 3) for i in shown}, why)
