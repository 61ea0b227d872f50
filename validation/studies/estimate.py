"""How long a study takes and what its devices burn, from points already computed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from validation.studies.points import Point
from validation.studies.progress import duration
from validation.studies.store import Result, Store

JOULES = "joules_training"


class Estimate:
    """Medians by method of what computed points took."""

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._joules: defaultdict[str, list[float]] = defaultdict(list)
        for result in results:
            self.add(result)

    def add(self, result: Result) -> None:
        """Learn from a point that is done."""
        seconds = result.volatile.get("wall_seconds")
        if result.status == "done" and seconds is not None:
            self._seconds[_alike(result.point)].append(float(seconds))
            if JOULES in result.figures:
                self._joules[_alike(result.point)].append(result.figures[JOULES])

    def knows(self, points: Iterable[Point]) -> bool:
        """Whether something like each of these points has been computed."""
        return all(_alike(point) in self._seconds for point in points)

    def told(self, points: Iterable[Point], jobs: int) -> str:
        """Time and energy of points that are left, in words."""
        seconds = joules = 0.0
        known = counted = 0
        for point in points:
            counted += 1
            name = _alike(point)
            if name in self._seconds:
                known += 1
                seconds += statistics.median(self._seconds[name])
                joules += statistics.median(self._joules[name]) if name in self._joules else 0.0
        if not counted:
            return "nothing is left to compute"
        if not known:
            return "time and energy: not known before the first point"
        scale = counted / known
        text = f"about {duration(scale * seconds / jobs)} on {jobs} worker{'s' * (jobs > 1)}"
        if joules:
            text += f"; the devices burn about {scale * joules:.2g} J in training"
        return text


def left(points: Iterable[Point], store: Store, retry_failed: bool) -> list[Point]:
    """The points that a run would compute."""
    found = []
    for point in points:
        result = store.read(point.key())
        if result is None or (retry_failed and result.status == "failed"):
            found.append(point)
    return found


def _alike(point: Point) -> str:
    """Points of one kind take about the same time."""
    return f"{point.base} {point.method} {point.when} {point.quick} {point.limit}"
