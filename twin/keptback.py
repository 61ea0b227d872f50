"""Which part of a recording is not fitted, so that a twin can be judged by it."""

from __future__ import annotations

import numpy as np

from twin.heldout import FEWEST_HELD_OUT
from twin.key import Key
from twin.observations import Ints, Mask, Observations, numbered

FEWEST_REPEATED = 5
"""Repeated drives to hold out, where half of them are as many."""


def kept_back(seen: Observations, share: float, key: Key) -> Mask:
    """Rows of the drives to hold out, in every state: a share of those of the last state.

    Of repeated drives at least FEWEST_REPEATED and at most half, rather of those that only
    one call repeats: the others tell how the device changes. No constant drives, as zero
    and full ones: a wrong twin may get these right.
    """
    final = last_state(seen)
    drive = numbered(seen.drive)
    calls = np.bincount(drive[final & _first_of_burst(seen)], minlength=drive.max() + 1)
    rows = np.bincount(drive[final], minlength=len(calls))
    usable = (rows > 0) & _varied(seen, drive)
    late, shots, single = (
        np.flatnonzero(usable & kind) for kind in (calls > 1, (calls == 1) & (rows > 1), rows == 1)
    )
    wanted = max(FEWEST_REPEATED, round(share * (len(late) + len(shots))))
    one = _drawn(shots, wanted, key.child("shots"))
    again = _drawn(late, wanted - len(one), key.child("late"))
    repeated = rows[one].sum() + rows[again].sum()
    alone = max(round(share * len(single)), FEWEST_HELD_OUT - int(repeated))
    chosen = np.zeros(len(rows), bool)
    chosen[np.concatenate([one, again, _drawn(single, alone, key.child("single"))])] = True
    return np.asarray(chosen[drive], bool)


def last_state(seen: Observations) -> Mask:
    """Rows in the last write, with every dial as it was left."""
    final = seen.write == seen.write[-1]
    for value in seen.dials.values():
        final &= value == value[-1]
    return np.asarray(final, bool)


def _first_of_burst(seen: Observations) -> Mask:
    first = np.zeros(len(seen), bool)
    first[np.unique(seen.burst, return_index=True)[1]] = True
    return first


def _varied(seen: Observations, drive: Ints) -> Mask:
    """Whether entries differ, of each drive number; all, if no drive's do."""
    varied = np.zeros(int(drive.max()) + 1, bool)
    varied[drive] = np.ptp(seen.drive, axis=1) > 0
    return varied if varied.any() else ~varied


def _drawn(of: Ints, count: int, key: Key) -> Ints:
    """`count` of them at random, half at most."""
    most = min(max(count, 0), len(of) // 2)
    return np.asarray(key.numpy().permutation(of)[:most], np.int64)
