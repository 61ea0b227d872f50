"""Paired timing within one run: two pieces of work in turn, medians, ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Medians of two interleaved timings, seconds, and of their ratios."""

    ours_s: float
    theirs_s: float
    ratio: float
    runs: int


def paired(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> Paired:
    """Time both in turn for about `seconds`, at least 5 times each.

    ratio: median of theirs / ours, pair by pair, so that a machine whose speed
    drifts does not spoil the comparison.
    """
    ours()
    theirs()
    pairs: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while len(pairs) < 5 or time.perf_counter() - begun < seconds:
        pairs.append((_seconds(ours), _seconds(theirs)))
    return Paired(
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
        len(pairs),
    )


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
