"""Which trial a method runs with, and what was found with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from validation.studies.compare.plan import Arm, Comparison
from validation.studies.points import Point, Value
from validation.studies.store import Result, Store


@dataclass(frozen=True)
class Cell:
    """One method at one level of one arm. level: None if it makes no difference to it.

    best: the trial that is best on validation, of those that worked; None if none did.
    """

    arm: Arm
    method: str
    level: Value | None
    trials: tuple[Point, ...]
    best: Point | None
    reason: str = ""


def cells(comparison: Comparison, store: Store) -> Iterator[Cell]:
    """Every cell with the trial to go on with, as far as trials are computed."""
    for arm, method, level in comparison.asked():
        trials = comparison.trials_of(arm, method, level)
        results = [store.read(point.key()) for point in trials]
        done = [(p, r) for p, r in zip(trials, results, strict=True) if _worked(r)]
        best = max(done, key=lambda pair: _validation(pair[1]))[0] if done else None
        reasons = [r.reason for r in results if r is not None and r.status == "failed"]
        yield Cell(arm, method, level, tuple(trials), best, reasons[0] if reasons else "")


def trials(comparison: Comparison) -> list[Point]:
    """All points that tune, each once."""
    asked = (comparison.trials_of(*cell) for cell in comparison.asked())
    return list(dict.fromkeys(point for points in asked for point in points))


def finals(comparison: Comparison, store: Store) -> list[Point]:
    """The best trial of every cell with all seeds, each point once."""
    found = (comparison.finals(c.best) for c in cells(comparison, store) if c.best is not None)
    return list(dict.fromkeys(point for points in found for point in points))


def _worked(result: Result | None) -> bool:
    return result is not None and result.status == "done"


def _validation(result: Result | None) -> float:
    assert result is not None
    return result.figures.get("accuracy_validation", -math.inf)
