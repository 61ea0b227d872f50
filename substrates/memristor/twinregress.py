"""Weighted regression of the readings of one write, each column with weights of its own.

As `twin.solving.linear` where the noise is 1 / weight; faster, since the covariance then is
the inverse that solves, and since the columns share the shape of what a fit takes of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from twin.errors import DataError
from twin.solving import OPEN, SHOWN, named
from twin.twinmodel import Direction, Floats

WELL = 1e11
"""Condition of a Gram matrix up to which it is inverted without looking at its directions."""


class Regression(NamedTuple):
    """coefficients, errors, with_last: (terms, columns), the last two a term's standard error,
    NaN where open, and its covariance with the last one. leverage: (n, columns)."""

    coefficients: Floats
    errors: Floats
    with_last: Floats
    leverage: Floats
    unidentified: tuple[Direction, ...]


class _Solved(NamedTuple):
    inverse: Floats
    open: Floats


def regression(
    design: Floats, response: Floats, weight: Floats, names: list[str], *, known: bool
) -> Regression:
    """response[:, c] = design @ coefficients[:, c].

    weight: (n, columns), 0 leaves a reading out. known: the weights are 1 / variance; else
    the errors are scaled by what is left over. Open directions get the smallest solution.
    Leverage is that of the mean weights, scaled to each column's: right in sum.
    """
    if not len(design):
        raise DataError("a write was left without readings to fit. Record more passes.")
    scale = np.sqrt((design**2).mean(0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = design / scale
    same = bool((weight == weight[:, :1]).all())
    shared = _solved(scaled, weight[:, 0]) if same else None
    coefficients, errors, with_last = np.zeros((3, design.shape[1], response.shape[1]))
    found: dict[str, Direction] = {}
    moments = scaled.T @ (weight * response)
    for c in range(response.shape[1]):
        inverse, opened = shared or _solved(scaled, weight[:, c])
        beta = inverse @ moments[:, c]
        spread = 1.0 if known else _spread(scaled, response[:, c], weight[:, c], beta)
        bad = (opened**2).sum(1) > SHOWN**2
        error = np.sqrt(np.maximum(np.diag(inverse), 0.0) * spread) / scale
        coefficients[:, c], errors[:, c] = beta / scale, np.where(bad, np.nan, error)
        with_last[:, c] = spread * inverse[:, -1] / scale / scale[-1]
        for vector in opened.T:
            direction = named(vector, names, "no drive in the recording tells them apart")
            found.setdefault(str(direction), direction)
    leverage = _leverage(scaled, weight)
    return Regression(coefficients, errors, with_last, leverage, tuple(found.values()))


def _solved(scaled: Floats, weight: Floats) -> _Solved:
    """Pseudo-inverse of the weighted Gram matrix, and its null space (terms, k)."""
    root = scaled * np.sqrt(weight)[:, None]
    gram = root.T @ root
    try:
        inverse: Floats = np.asarray(np.linalg.inv(gram), np.float64)
        if np.linalg.norm(inverse) * np.linalg.norm(gram) < WELL:
            return _Solved(inverse, np.zeros((len(gram), 0)))
    except np.linalg.LinAlgError:
        pass
    power, vectors = np.linalg.eigh(gram)
    # The Gram matrix holds squares: what is OPEN of the design is rounding here.
    keep = power > max(float(power[-1]), 1e-300) * max(OPEN**2, len(power) * 1e-14)
    kept = vectors[:, keep]
    return _Solved((kept / power[keep]) @ kept.T, vectors[:, ~keep])


def _spread(scaled: Floats, response: Floats, weight: Floats, beta: Floats) -> float:
    """Variance left over, per 1 / weight."""
    freedom = max(1, int((weight > 0).sum()) - scaled.shape[1])
    return float((weight * (response - scaled @ beta) ** 2).sum()) / freedom


def _leverage(scaled: Floats, weight: Floats) -> Floats:
    mean = weight.mean(1)
    inverse, opened = _solved(scaled, mean)
    shape = ((scaled @ inverse) * scaled).sum(1)[:, None] * weight
    rank = len(inverse) - opened.shape[1]
    return np.asarray(rank * shape / np.maximum(shape.sum(0), 1e-300))
