"""What was written against what was found: gains, write error and stuck cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from substrates.memristor.twincells import classified
from twin.twinmodel import Direction, Floats

Mask = npt.NDArray[np.bool_]

FAULT_CHI2_SIGMAS = 6.0
"""A pair is faulty where it misses its settings by so much, and a stuck cell explains it."""


class Pairs(NamedTuple):
    """gain, gain_error: (live,). write_error, its standard error. fault, level:
    (inputs, live)."""

    gain: Floats
    gain_error: Floats
    write_error: float
    write_error_error: float
    fault: Floats
    level: Floats
    unidentified: tuple[Direction, ...]


def unwritten(inputs: int, live: int) -> Pairs:
    why = "nothing was written in the recording; taken as 1 and 0"
    nan = np.full(live, np.nan)
    zero = np.zeros((inputs, live))
    return Pairs(
        np.ones(live), nan, 0.0, np.nan, zero, zero,
        (Direction({"column_gain": 1.0}, why), Direction({"write_error": 1.0}, why)),
    )  # fmt: skip


def compared(settings: Floats, found: Floats, errors: Floats) -> Pairs:
    """Gains, write error and stuck cells, from (writes, inputs, live) arrays each."""
    measured2 = np.nan_to_num(errors, nan=np.inf) ** 2
    large = (np.abs(settings) > 0.25) & np.isfinite(measured2)
    ratio = np.where(large, found / np.where(large, settings, 1.0), np.nan)
    gain = np.array([np.nanmedian(r) if np.isfinite(r).any() else 1.0 for r in ratio.T.reshape(found.shape[2], -1)])  # fmt: skip  # noqa: E501
    gain = np.where(np.abs(gain) > 0.01, np.abs(gain), 1.0)
    off = (found / gain - settings)[np.isfinite(measured2)]
    write2 = float(np.median(np.abs(off)) / 0.6745) ** 2 if off.size else 0.0
    fault, level = np.zeros((2, *found.shape[1:]))
    gain_error = np.full(len(gain), np.nan)
    error = np.nan
    for _ in range(4):
        weight = 1 / np.maximum(write2 + measured2 / gain**2, 1e-12)
        fault, level = _faults(settings, found / gain, weight)
        sound = weight * (fault == 0)
        power = (sound * settings**2).sum((0, 1))
        gain = np.where(power > 0, (sound * settings * found).sum((0, 1)) / np.maximum(power, 1e-12), gain)  # fmt: skip  # noqa: E501
        gain = np.clip(gain, 0.01, 100)
        gain_error = np.where(power > 0, gain / np.sqrt(np.maximum(power, 1e-12)), np.nan)
        write2, error = _excess((found / gain - settings), measured2 / gain**2, fault == 0, write2)
    return Pairs(gain, gain_error, float(np.sqrt(write2 / 2)), error, fault, level, ())


def _faults(settings: Floats, held: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Pairs that miss their settings and that a stuck cell explains better."""
    writes, shape = len(settings), settings.shape[1:]
    flat = [a.reshape(writes, -1) for a in (settings, held, weight)]
    fault, level, misfit = classified(*flat)
    limit = writes + FAULT_CHI2_SIGMAS * np.sqrt(2 * writes) + FAULT_CHI2_SIGMAS**2
    best = misfit[1:].min(0)
    broken = (misfit[0] > limit) & (best < misfit[0] / 4)
    return (
        np.where(broken, fault, 0.0).reshape(shape),
        np.where(broken, np.clip(level, -1, 2), 0.0).reshape(shape),
    )


def _excess(off: Floats, known2: Floats, sound: Mask, write2: float) -> tuple[float, float]:
    """Variance beyond `known2` (of a pair), and the standard error of a cell's sigma."""
    use = np.broadcast_to(sound, off.shape) & np.isfinite(known2)
    if not use.any():
        return 0.0, np.nan
    total = write2 + known2[use]
    weight = 1 / np.maximum(total, 1e-12) ** 2
    # One gain of each column was fitted to its cells.
    freedom = 1 - off.shape[2] / max(int(use.sum()), off.shape[2] + 1)
    excess = float((weight * (off[use] ** 2 / freedom - known2[use])).sum() / weight.sum())
    error2 = np.sqrt(2 / weight.sum())
    sigma = np.sqrt(max(excess, 0.0) / 2)
    return max(excess, 0.0), float(error2 / (4 * sigma)) if sigma > 0 else float(np.sqrt(error2))
