"""What each write of a recording holds, and the columns' offsets that all writes share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from substrates.memristor.twinregress import Regression
from twin.twinmodel import Direction, Floats


class Left(NamedTuple):
    """Of each reading of a live column: what the fit says, and what it took of its noise."""

    mean: Floats
    leverage: Floats


class Writes(NamedTuple):
    """weights, errors: (writes, inputs, live columns), gain included. number: of each
    write, counted as the recording does. offset, offset_error: (live columns,)."""

    number: list[int]
    weights: Floats
    errors: Floats
    offset: Floats
    offset_error: Floats
    unidentified: tuple[Direction, ...]


def terms(inputs: int) -> list[str]:
    return [*(f"held_weights[{i}]" for i in range(inputs)), "column_offset"]


def sharing_offset(numbers: list[int], fits: list[Regression]) -> Writes:
    """The joint solution of fits that have an offset each, where there is but one."""
    variance = np.stack([fit.errors[-1] ** 2 for fit in fits])
    good = np.isfinite(variance) & (variance > 0)
    share = np.where(good, 1 / np.where(good, variance, 1.0), 0.0)
    total = share.sum(0)
    offsets = np.stack([fit.coefficients[-1] for fit in fits])
    single = total == 0
    joint = np.where(single, offsets[-1], (share * offsets).sum(0) / np.where(single, 1, total))
    error2 = np.where(single, np.nan, 1 / np.where(single, 1.0, total))
    weights, errors = [], []
    for fit, own2, known in zip(fits, variance, good, strict=True):
        pull = np.where(known, fit.with_last[:-1] / np.where(known, own2, 1.0), 0.0)
        weights.append(fit.coefficients[:-1] + pull * (joint - fit.coefficients[-1]))
        spread2 = fit.errors[:-1] ** 2 - pull**2 * np.where(known, own2 - error2, 0.0)
        errors.append(np.sqrt(np.maximum(spread2, 0.0)))
    return Writes(
        numbers, np.stack(weights), np.stack(errors), joint, np.sqrt(error2),
        fits[-1].unidentified,
    )  # fmt: skip
