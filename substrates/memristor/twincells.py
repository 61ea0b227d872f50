"""What a pair of cells holds when one of them is stuck, which one it is, and how it reads.

Cells are in units of the window above its lowest conductance, weights in those of a setting.
"""

from __future__ import annotations

import numpy as np

from twin.twinmodel import Floats

BOTH = 3
"""Fault of a pair of which no cell moves: it holds the same weight after each write."""


def cells_written(setting: Floats, fault: Floats, level: Floats) -> Floats:
    """Weights (inputs, outputs) after writing `setting`.

    fault: 0 healthy, 1 G+ stuck, 2 G- stuck, at `level` of the window; 3 both, `level` apart.
    """
    plus, minus = np.maximum(setting, 0.0), np.maximum(-setting, 0.0)
    plus = np.where(fault == 1, level, plus)
    minus = np.where(fault == 2, level, minus)
    return np.where(fault == BOTH, level, plus - minus)


def cells_held(weights: Floats, fault: Floats, level: Floats) -> tuple[Floats, Floats]:
    """G+ and G- of pairs that hold `weights`: of a healthy one, one cell is at the floor.

    Taken so where both are stuck, too: only their difference is known.
    """
    plus, minus = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    plus = np.where(fault == 1, level, np.where(fault == 2, level + weights, plus))
    minus = np.where(fault == 2, level, np.where(fault == 1, level - weights, minus))
    return np.asarray(plus), np.asarray(minus)


def noise_power(
    drive: Floats,
    cells: tuple[Floats, Floats],
    gain: Floats,
    *,
    floor: float,
    unit: float,
    kept: Floats | None = None,
) -> Floats:
    """sum_i x_i^2 (G+^2 + G-^2), a reading's variance per squared relative read noise.

    drive: (n, inputs). cells: G+ and G-, (inputs, outputs). gain: (outputs,). floor: lowest
    conductance over the window. unit: of a reading. kept: (n, 1), what drift has left of
    the cells above the floor. Returns (n, outputs). Holds for pairs that share no reference.
    """
    square = drive**2
    plus, minus = cells
    if kept is None:
        both = (floor + plus) ** 2 + (floor + minus) ** 2
        return np.asarray((square @ both) * (gain / unit) ** 2)
    cross, own = 2 * floor * (plus + minus), plus**2 + minus**2
    still = 2 * floor**2 * square.sum(1)[:, None]
    return np.asarray(
        (still + kept * (square @ cross) + kept**2 * (square @ own)) * (gain / unit) ** 2
    )


def classified(settings: Floats, held: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Fault, level and misfit of each hypothesis for pairs seen in several writes.

    settings, held: (writes, cells), what was asked and what is there, without gain.
    weight: 1 / variance, same shape. Returns fault (cells,), level (cells,) and
    chi-square (4, cells) for healthy, G+ stuck, G- stuck and both stuck.
    """
    plus, minus = np.maximum(settings, 0.0), np.maximum(-settings, 0.0)
    total = np.maximum(weight.sum(0), 1e-300)  # 0 where nothing is known
    levels = np.zeros((4, held.shape[1]))
    levels[1] = (weight * (held + minus)).sum(0) / total
    levels[2] = (weight * (plus - held)).sum(0) / total
    levels[BOTH] = (weight * held).sum(0) / total
    misfit = np.stack(
        [
            (weight * (held - settings) ** 2).sum(0),
            (weight * (held - levels[1] + minus) ** 2).sum(0),
            (weight * (held - plus + levels[2]) ** 2).sum(0),
            (weight * (held - levels[BOTH]) ** 2).sum(0),
        ]
    )
    fault = misfit[1:].argmin(0) + 1
    return fault.astype(np.float64), np.take_along_axis(levels, fault[None], 0)[0], misfit
