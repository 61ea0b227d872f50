"""What rest does to written weights, from reads some time after a write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from twin.observations import Observations
from twin.solving import curve
from twin.twinmodel import Floats, Parameter

FIRST_S = 1.0
LONGER = 1.5
"""Ages are told apart from this ratio on."""

EXPONENT = Parameter(name="drift_exponent", unit="1", low=-0.5, high=1.0)
SPREAD = Parameter(name="drift_spread", unit="window", low=0.0, high=0.2)
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Variance = Callable[[Floats, Floats], Floats]


def drift(
    seen: Observations,
    live: Ints,
    numbers: Sequence[int],
    weights: Floats,
    errors: Floats,
    offset: Floats,
    *,
    variance_of: Variance,
    unit: float,
    main: Mask,
) -> dict[str, tuple[float, float]]:
    """drift_exponent and drift_spread with standard errors; (0, NaN) where open.

    weights, errors: (writes, inputs, live), of the main stretch of each write. main: its rows.
    """
    rows, oldest = [], []
    for number, w, error in zip(numbers, weights, errors, strict=True):
        found = [
            _compare(seen, live, own, later, w, error, offset, variance_of, unit)
            for own, later in _later(seen, number, main)
        ]
        rows += found
        # The same cells drift in every stretch of a write: one alone counts.
        oldest += [max(found)] if found else []
    if not rows:
        return {EXPONENT.name: (0.0, np.nan), SPREAD.name: (0.0, np.nan)}
    ln, ratio, error, _, _ = np.array(rows).T
    power = curve([EXPONENT], lambda p: (np.exp(-p[0] * ln) - ratio) / error, [0.0], scale=[0.01])
    # 2 spread^2 ln^2 of a pair, linear in the square.
    ln, _, _, excess2, excess_error = np.array(oldest).T
    weight = (2 * ln**2 / excess_error) ** 2
    square = float((weight * excess2 / (2 * ln**2)).sum() / weight.sum())
    square_error = 1 / np.sqrt(weight.sum())
    spread = float(np.sqrt(max(square, 0.0)))
    spread_error = square_error / (2 * spread) if square > square_error else np.sqrt(square_error)
    return {
        EXPONENT.name: (float(power.values[0]), float(power.errors[0])),
        SPREAD.name: (min(spread, SPREAD.high), float(spread_error)),
    }


def _later(seen: Observations, number: int, main: Mask) -> list[tuple[Mask, Mask]]:
    """(main rows, rows) of each stretch of a write that is clearly older than its main one."""
    own = seen.write == number
    base = own & main
    young = max(float(np.median(seen.age_s[base])), FIRST_S)
    stretches = [own & ~main & (seen.rest == rest) for rest in np.unique(seen.rest[own])]
    return [
        (base, rows)
        for rows in stretches
        if rows.any() and float(np.median(seen.age_s[rows])) > LONGER * young
    ]


def _compare(
    seen: Observations,
    live: Ints,
    base: Mask,
    rows: Mask,
    weights: Floats,
    errors: Floats,
    offset: Floats,
    variance_of: Variance,
    unit: float,
) -> tuple[float, float, float, float, float]:
    """ln of the age ratio; the ratio of the weights; variance per weight beyond noise."""
    x, y = seen.drive[rows], seen.value[rows][:, live] - offset
    mean = x @ weights / unit
    noise = variance_of(x, weights)
    free = ~seen.at_end[rows][:, live]
    w = free / noise
    ratio = float((w * mean * y).sum() / (w * mean**2).sum())
    # About each column's mean: drives are positive, so that without it a single
    # direction, that of all weights together, would outweigh all others.
    near = x - x.mean(0)
    left = y - ratio * mean
    left2 = (left - left.mean(0)) ** 2
    # How far an error of one in every weight, independent, moves a reading.
    lever = (near**2).sum(1)[:, None] / unit**2
    known = noise * (1 - 1 / len(x)) + near**2 @ np.nan_to_num(errors**2) / unit**2
    total = float((free * lever).sum())
    excess = float((free * (left2 - known)).sum()) / total
    gram = near.T @ near
    pairs = weights.shape[1] * float(np.trace(gram) ** 2 / np.maximum((gram**2).sum(), 1e-300))
    spread2 = float((free * left2).sum()) / total
    pulled = (x.T @ x) @ weights
    cells2 = max(excess, 0.0) + float(np.nan_to_num(errors**2).mean())
    shift2 = cells2 * float((pulled**2).sum() / (weights * pulled).sum() ** 2)
    ratio_error = np.sqrt(1 / (w * mean**2).sum() + shift2)
    ages = [max(float(np.median(seen.age_s[r])), FIRST_S) for r in (rows, base)]
    return (
        float(np.log(ages[0] / ages[1])), ratio, float(ratio_error),
        excess, spread2 * float(np.sqrt(2 / pairs)),
    )  # fmt: skip
