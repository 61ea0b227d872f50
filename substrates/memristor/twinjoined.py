"""The parts of a fitted chip as one estimate: values, errors, flags and what is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from substrates.memristor.twindrift import Drift
from substrates.memristor.twinnoise import NOISE
from substrates.memristor.twinpairs import Pairs
from substrates.memristor.twinrows import Ints
from substrates.memristor.twinwrites import Writes
from twin.observations import Observations
from twin.solving import CurveFit
from twin.twinmodel import Direction, Estimates, Floats


class Fitted(NamedTuple):
    """ln: of the age, in seconds, that the last write was read at. left_out: of each write
    the column of every reading that no noise explains."""

    writes: Writes
    pairs: Pairs
    noise: CurveFit
    moved: Drift
    ln: float
    left_out: Mapping[int, Ints]
    unidentified: tuple[Direction, ...]


def joined(seen: Observations, live: Ints, found: Fitted) -> Estimates:
    """live: numbers of the columns that were fitted; the others are stuck."""
    scalars, columns, cells = _scalars(found), _columns(found), _cells(found)
    shape = (seen.drive.shape[1], seen.value.shape[1])
    stuck = np.ones(shape[1], bool)
    stuck[live] = False
    values = {
        **{name: _wide(a, live, shape, rest) for name, (a, _, rest) in cells.items()},
        **{name: _wide(a, live, shape[1:], rest) for name, (a, _, rest) in columns.items()},
        **{name: np.array(value) for name, (value, _) in scalars.items()},
        "held_drift": np.zeros(shape),
        "held_age_s": np.array(_age_s(seen)),
        "column_stuck": stuck.astype(np.float64),
        **_stuck_readings(seen, stuck),
    }
    errors = {
        name: _wide(error, live, shape[-error.ndim :], np.nan)
        for name, (_, error, _) in (*cells.items(), *columns.items())
        if error is not None
    }
    errors |= {name: np.array(error) for name, (_, error) in scalars.items()}
    return Estimates(
        values=values,
        errors=errors,
        covariance={tuple(p.name for p in NOISE): found.noise.covariance},
        unidentified=(
            *found.unidentified, *found.pairs.unidentified, *found.moved.unidentified,
            *found.noise.unidentified, *found.writes.unidentified,
        ),
        flags=_flags(found, live, stuck, values["cell_fault"]),
    )  # fmt: skip


def _scalars(found: Fitted) -> dict[str, tuple[float, float]]:
    noise, moved, pairs = found.noise, found.moved, found.pairs
    return {
        "additive_noise": (noise.values[0], noise.errors[0]),
        "read_noise": (noise.values[1], noise.errors[1]),
        "write_error": (pairs.write_error, pairs.write_error_error),
        "drift_exponent": (moved.exponent, moved.exponent_error),
        "drift_spread": (moved.spread, moved.spread_error),
    }


def _columns(found: Fitted) -> dict[str, tuple[Floats, Floats, float]]:
    """Value, error, and what a stuck column gets."""
    pairs, writes = found.pairs, found.writes
    return {
        "column_gain": (pairs.gain, pairs.gain_error, 1.0),
        "column_offset": (writes.offset, writes.offset_error, 0.0),
    }


def _cells(found: Fitted) -> dict[str, tuple[Floats, Floats | None, float]]:
    moved, pairs = found.moved, found.pairs
    kept = moved.kept(found.ln)
    fresh = found.writes.weights[-1] / kept
    # What drift did to each cell before it was read stays in its weight.
    aged2 = (np.nan_to_num(moved.exponent_error) * found.ln * fresh) ** 2
    aged2 = aged2 + 2 * (moved.spread * found.ln * pairs.gain) ** 2
    error = np.sqrt((found.writes.errors[-1] / kept) ** 2 + aged2)
    return {
        "held_weights": (fresh, error, 0.0),
        "cell_fault": (pairs.fault, None, 0.0),
        "cell_level": (pairs.level, None, 0.0),
    }


def _age_s(seen: Observations) -> float:
    return max(0.0, float(seen.age_s[seen.write == seen.write[-1]].max()))


def _stuck_readings(seen: Observations, stuck: np.ndarray) -> dict[str, Floats]:
    """Mean and sigma of stuck columns in the last state; 0 for the others."""
    last = seen.value[seen.write == seen.write[-1]]
    return {
        "column_level": np.where(stuck, last.mean(0), 0.0),
        "column_noise": np.where(stuck & (np.ptp(last, 0) > 0), last.std(0), 0.0),
    }


def _wide(part: Floats, live: Ints, shape: tuple[int, ...], rest: float) -> Floats:
    out = np.full(shape, rest)
    out[..., live] = part
    return out


def _flags(
    found: Fitted, live: Ints, stuck: np.ndarray, fault: Floats
) -> dict[str, tuple[int, ...]]:
    flags = {
        "stuck columns": np.flatnonzero(stuck),
        "faulty cells": np.flatnonzero(fault),
        "columns that follow no setting": live[found.pairs.deaf],
    }
    flags |= {f"readings left out of write {n}, by column": c for n, c in found.left_out.items()}
    always = ("stuck columns", "faulty cells")
    return {
        name: tuple(int(i) for i in where)
        for name, where in flags.items()
        if len(where) or name in always
    }
