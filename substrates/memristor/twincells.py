"""What a pair of cells holds when one of them is stuck, and which one it is."""

from __future__ import annotations

import numpy as np

from twin.twinmodel import Floats


def cells_written(setting: Floats, fault: Floats, level: Floats) -> Floats:
    """Weights (inputs, outputs) after writing `setting`.

    fault: 0 healthy, 1 G+ stuck, 2 G- stuck, at `level` of the window.
    """
    plus, minus = np.maximum(setting, 0.0), np.maximum(-setting, 0.0)
    plus = np.where(fault == 1, level, plus)
    minus = np.where(fault == 2, level, minus)
    return np.asarray(plus - minus)


def classified(settings: Floats, held: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Fault, level and misfit of each hypothesis for pairs seen in several writes.

    settings, held: (writes, cells), what was asked and what is there, without gain.
    weight: 1 / variance, same shape. Returns fault (cells,), level (cells,) and
    chi-square (3, cells) for healthy, G+ stuck and G- stuck.
    """
    plus, minus = np.maximum(settings, 0.0), np.maximum(-settings, 0.0)
    total = np.maximum(weight.sum(0), 1e-300)  # 0 where nothing is known
    levels = np.zeros((3, held.shape[1]))
    levels[1] = (weight * (held + minus)).sum(0) / total
    levels[2] = (weight * (plus - held)).sum(0) / total
    misfit = np.stack(
        [
            (weight * (held - settings) ** 2).sum(0),
            (weight * (held - levels[1] + minus) ** 2).sum(0),
            (weight * (held - plus + levels[2]) ** 2).sum(0),
        ]
    )
    fault = misfit[1:].argmin(0) + 1
    return fault.astype(np.float64), np.take_along_axis(levels, fault[None], 0)[0], misfit
