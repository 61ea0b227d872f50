"""Stretches of a recording between waits that matter, and the one of each write to fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from twin.observations import Observations
from twin.twinmodel import Floats

FIRST_S = 1.0
"""Age from which rest counts; a younger cell is taken to have this age."""

LONGER = 1.5
"""Ages are told apart from this ratio on."""

FEW = 2
"""Passes per input below which a write, or a stretch, is not looked at."""

ENOUGH_OF_LARGEST = 0.5
"""A younger stretch of this share of the largest is the main one."""

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def log_age(age_s: Floats) -> float:
    """Mean ln(age / 1 s) of rows; 0 below 1 s."""
    return float(np.log(np.maximum(age_s, FIRST_S) / FIRST_S).mean())


def stretches(seen: Observations) -> Ints:
    """Number of each row's stretch: a write begins one, and a wait that makes cells older
    by LONGER. Shorter waits change nothing that could be seen."""
    number = np.zeros(len(seen), np.int64)
    states = np.stack([seen.write, seen.rest], 1)
    count, before, began = -1, -1, 0.0
    for state in np.unique(states, axis=0):
        rows = (states == state).all(1)
        age = max(float(np.median(seen.age_s[rows])), FIRST_S)
        if state[0] != before or age > LONGER * began:
            count, before, began = count + 1, int(state[0]), age
        number[rows] = count
    return number


def main_rows(seen: Observations, stretch: Ints) -> Mask:
    """Of each write the rows of its youngest stretch that is large enough."""
    main = np.zeros(len(seen), bool)
    for write in np.unique(seen.write):
        own = seen.write == write
        numbers, counts = np.unique(stretch[own], return_counts=True)
        enough = counts >= max(
            ENOUGH_OF_LARGEST * counts.max(), min(FEW * seen.drive.shape[1], counts.max())
        )
        main |= own & (stretch == numbers[enough.argmax()])
    return main
