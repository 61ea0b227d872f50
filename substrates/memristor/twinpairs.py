"""What was written against what was found: gains, write error, stuck cells, and whether
the same is missed in each write."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from substrates.memristor.twincells import classified
from twin.twinmodel import Direction, Floats

Mask = npt.NDArray[np.bool_]

FAULT_CHI2_SIGMAS = 6.0
"""A pair is faulty where it misses its settings by so much, and a stuck cell explains it."""

SIGMAS = 5.0
SMALLEST_GAIN, LARGEST_GAIN = 0.01, 100.0


class Pairs(NamedTuple):
    """gain, gain_error: (live,). write_error, its standard error. fault, level: (inputs, live).
    deaf: (live,), columns that hold something which follows no setting."""

    gain: Floats
    gain_error: Floats
    write_error: float
    write_error_error: float
    fault: Floats
    level: Floats
    deaf: Mask
    unidentified: tuple[Direction, ...]


def unwritten(inputs: int, live: int) -> Pairs:
    why = "nothing was written in the recording; taken as 1 and 0"
    nan = np.full(live, np.nan)
    zero = np.zeros((inputs, live))
    return Pairs(
        np.ones(live), nan, 0.0, np.nan, zero, zero, np.zeros(live, bool),
        (Direction({"column_gain": 1.0}, why), Direction({"write_error": 1.0}, why)),
    )  # fmt: skip


def compared(settings: Floats, found: Floats, errors: Floats, drifted2: Floats) -> Pairs:
    """Gains, write error and stuck cells, from (writes, inputs, live) arrays each.

    found: drift taken out. drifted2: (writes,), variance that drift gave a pair, window^2.
    """
    measured2 = np.nan_to_num(errors, nan=np.inf) ** 2
    deaf = _deaf(settings, found)
    gain = _first_gains(settings, found, measured2, deaf)
    hearing = np.isfinite(measured2) & ~deaf
    off = (found / gain - settings)[hearing]
    write2 = float(np.median(np.abs(off)) / 0.6745) ** 2 if off.size else 0.0
    fault, level = np.zeros((2, *found.shape[1:]))
    gain_error, error = np.full(len(gain), np.nan), np.nan
    for _ in range(4):
        known2 = measured2 / gain**2 + drifted2[:, None, None]
        weight = ~deaf / np.maximum(write2 + known2, 1e-12)
        fault, level = _faults(settings, found / gain, weight)
        gain, gain_error = _gains(settings, found, weight * (fault == 0), gain)
        sound = (fault == 0) & ~deaf
        known2 = measured2 / gain**2 + drifted2[:, None, None]
        write2, error = _excess((found / gain - settings), known2, sound, write2)
    told = _repeated(settings, found / gain - settings, hearing & (fault == 0))
    return Pairs(gain, gain_error, float(np.sqrt(write2 / 2)), error, fault, level, deaf, told)


def _first_gains(settings: Floats, found: Floats, measured2: Floats, deaf: Mask) -> Floats:
    """Median ratio of each column: a few stuck cells do not move it."""
    large = (np.abs(settings) > 0.25) & np.isfinite(measured2)
    ratio = np.where(large, found / np.where(large, settings, 1.0), np.nan)
    columns = np.moveaxis(ratio, 2, 0).reshape(found.shape[2], -1)
    gain = np.array([np.nanmedian(r) if np.isfinite(r).any() else 1.0 for r in columns])
    gain = np.where(np.abs(gain) > SMALLEST_GAIN, np.abs(gain), 1.0)
    return np.where(deaf, SMALLEST_GAIN, gain)


def _gains(
    settings: Floats, found: Floats, weight: Floats, before: Floats
) -> tuple[Floats, Floats]:
    """Weighted slope of each column and its standard error, NaN where nothing tells it."""
    power = (weight * settings**2).sum((0, 1))
    some = np.maximum(power, 1e-12)
    slope = (weight * settings * found).sum((0, 1)) / some
    gain = np.clip(np.where(power > 0, slope, before), SMALLEST_GAIN, LARGEST_GAIN)
    return gain, np.where(power > 0, gain / np.sqrt(some), np.nan)


def _deaf(settings: Floats, found: Floats) -> Mask:
    """Columns whose weights do not go with what was asked, by three standard errors."""
    both = (settings * found).sum((0, 1))
    size = np.sqrt((settings**2).sum((0, 1)) * (found**2).sum((0, 1)))
    least = min(0.5, 3 / np.sqrt(settings[:, :, 0].size))
    return np.asarray((size > 0) & (both < least * size))


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


def _repeated(settings: Floats, off: Floats, use: Mask) -> tuple[Direction, ...]:
    """Says so where cells miss their settings alike in each write: that is no scatter.

    off: (writes, inputs, live), found over gain less the setting. Three ways of being alike:
    by the same amount, by the same share of the setting, by a share that grows along the lines.
    """
    off = np.where(use, off, 0.0)
    # The offset of a column is shared by its writes: so is what it is off by.
    level = off.sum(1, keepdims=True) / np.maximum(use.sum(1, keepdims=True), 1)
    amounts = np.where(use, off - level, 0.0)
    found = [_alike(amounts), _alike(off * settings), _along(off * settings)]
    sigmas, share = max(found)
    if sigmas < SIGMAS:
        return ()
    why = (
        f"cells miss their settings alike in each write ({sigmas:.0f} standard errors; "
        f"{100 * min(share, 1):.0f} % of the variance that counts as write error). The held "
        "state is right; a rewritten twin will be off by it each time: resistive lines, another "
        "encoding, or cells that bend"
    )
    return (Direction({"write_error": 1.0, "column_gain": 1.0}, why),)


def _alike(off: Floats) -> tuple[float, float]:
    """Standard errors by which products of two writes exceed 0, and their share of squares."""
    writes = len(off)
    products = [off[j] * off[k] for j in range(writes) for k in range(j)]
    if not products:
        return 0.0, 0.0
    spread = np.sqrt(sum(float((p**2).sum()) for p in products))
    total = sum(float(p.sum()) for p in products)
    squares = float((off**2).sum()) * (writes - 1) / 2
    return total / max(spread, 1e-300), total / max(squares, 1e-300)


def _along(off: Floats) -> tuple[float, float]:
    """The same of a slope along the inputs, as resistive lines give it."""
    inputs = off.shape[1]
    place = (np.arange(inputs) - (inputs - 1) / 2)[:, None]
    slopes = off * place
    total, squares = float(slopes.sum()), float((slopes**2).sum())
    explained = total**2 / max(float((place**2).sum()) * off.shape[0] * off.shape[2], 1e-300)
    return abs(total) / np.sqrt(max(squares, 1e-300)), explained / max(
        float((off**2).sum()), 1e-300
    )
