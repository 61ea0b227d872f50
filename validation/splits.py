"""Stratified, seeded draws from labels. Imports numpy; keys come from twin.

Every function returns sorted row numbers, so that a split depends on the
labels and the seed only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError

Rows = NDArray[np.int64]


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator for one named split."""
    # Imported here: twin.key needs torch, and naming data sets must not.
    from twin.key import Key

    return Key(seed).child("datasets", *path).numpy()


def draw(
    y: Rows, size: int, rng: np.random.Generator, *, leave: int, what: str
) -> tuple[Rows, Rows]:
    """Split rows into (drawn, rest): `size` rows with the class shares of `y`.

    Shares are rounded by largest remainder; each class gives at least one row
    and keeps at least `leave`. Raises DataError where that is impossible.
    """
    counts = np.bincount(y)
    present = counts > 0
    capacity = np.where(present, counts - leave, 0)
    if size < present.sum() or (capacity[present] < 1).any() or size > capacity.sum():
        raise DataError(
            f"{what}: expected between {present.sum()} and {max(0, capacity.sum())} samples (at "
            f"least one of each class, {leave} of each left over), got {size}, smallest class "
            f"{counts[present].min()}. Ask for another number or bring more samples."
        )
    shares = _shares(counts, capacity, size)
    chosen = [rng.permutation(np.flatnonzero(y == c))[: shares[c]] for c in np.flatnonzero(present)]
    drawn = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(y)), drawn, assume_unique=True)
    return drawn, rest


def _shares(counts: Rows, capacity: Rows, size: int) -> Rows:
    """How many of each class: proportional, at least 1, at most capacity."""
    ideal = counts * (size / counts.sum())
    shares = np.clip(np.floor(ideal).astype(np.int64), np.minimum(1, capacity), capacity)
    while (missing := size - int(shares.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = (shares < capacity) if step > 0 else (shares > 1)
        hunger = np.where(free, step * (ideal - shares), -np.inf)
        shares[np.argmax(hunger)] += step
    return shares


def deal(y: Rows, k: int, rng: np.random.Generator) -> list[Rows]:
    """k disjoint stratified parts that cover all rows; sizes differ by <= 1."""
    hand = np.concatenate([rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)])
    return [np.sort(hand[i::k]) for i in range(k)]
