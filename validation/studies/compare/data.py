"""From the results of a comparison to one labelled dataset.

Dimensions: arm, level (padded with NaN), method (`trained_by`) and seed. What a
level does not touch stands at every level.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from validation.studies.collect import TRAINED_BY
from validation.studies.compare.chosen import Cell, cells
from validation.studies.compare.plan import Arm, Comparison
from validation.studies.points import VOLATILE, Value, unit_of
from validation.studies.store import Result, Store

DIMS = ("arm", "level", TRAINED_BY, "seed")


def dataset(asked: Comparison, store: Store) -> xr.Dataset:
    """Every figure of the finals; `trial`: the settings chosen for a cell, as JSON.

    level_value: what a level stands for, NaN where an arm has fewer. Costs stand
    beside accuracies, in SI units.
    """
    arms, most = [arm.name for arm in asked.arms], max(len(a.levels) for a in asked.arms)
    ran = dict.fromkeys(m for a in asked.arms for m in (a.methods or asked.methods))
    methods = [*ran, *asked.same_runs]
    shape = (len(arms), most, len(methods), len(asked.seeds))
    figures: dict[str, np.ndarray] = {}
    trial = np.full(shape[:3], "", object)
    for cell in cells(asked, store):
        if cell.best is None:
            continue
        where = arms.index(cell.arm.name), methods.index(cell.method)
        results = [store.read(point.key()) for point in asked.finals(cell.best)]
        for level in _places(cell):
            trial[where[0], level, where[1]] = told(cell)
            for seed, result in enumerate(results):
                for name, value in _figures(result):
                    table = figures.setdefault(name, np.full(shape, np.nan))
                    table[where[0], level, where[1], seed] = value
    _share(asked, figures, trial, methods)
    variables = {n: (DIMS, v, {"units": unit_of(n)}) for n, v in sorted(figures.items())}
    levels = np.full(shape[:2], np.nan)
    for index, arm in enumerate(asked.arms):
        levels[index, : len(arm.levels)] = [float(value) for value in arm.levels]
    return xr.Dataset(
        {**variables, "trial": (DIMS[:3], trial)},
        coords={
            "arm": arms, TRAINED_BY: methods, "seed": list(asked.seeds),
            "level_value": (("arm", "level"), levels),
            "label": ("arm", [arm.label for arm in asked.arms]),
        },
        attrs={
            "about": asked.about, "quick": str(asked.quick).lower(), "figure": asked.figure,
            "limit": str(asked.limit or "by level"), "trials": str(asked.trials),
            "versions": "\n".join(sorted(_versions(asked, store))),
            "volatile": " ".join(sorted(VOLATILE)),
        },
    )  # fmt: skip


def _share(
    asked: Comparison, figures: dict[str, np.ndarray], trial: np.ndarray, methods: list[str]
) -> None:
    """Fill in methods that ran together with another one; their costs stay open."""
    for method, (ran, figure) in asked.same_runs.items():
        here, there = methods.index(method), methods.index(ran)
        trial[:, :, here] = trial[:, :, there]
        if figure in figures:
            figures[asked.figure][:, :, here] = figures[figure][:, :, there]


def failures(asked: Comparison, store: Store) -> list[tuple[str, str]]:
    """(arm, method and level; reason) of every cell without a result."""
    return [
        (f"{c.arm.name}, {c.method}{_at(c.arm, c.level)}", c.reason or "not computed")
        for c in cells(asked, store)
        if c.best is None
    ]


def told(cell: Cell) -> str:
    """The settings of the chosen trial that trials differ in."""
    assert cell.best is not None
    varied = {path for point in cell.trials for path, _ in point.settings}
    fixed = {*cell.arm.settings, cell.arm.path}
    chosen = {path: value for path, value in cell.best.settings if path in varied - fixed}
    return json.dumps({path.removeprefix("compare."): v for path, v in chosen.items()})


def _places(cell: Cell) -> Sequence[int]:
    if cell.level is None:
        return range(len(cell.arm.levels))
    return [cell.arm.levels.index(cell.level)]


def _at(arm: Arm, level: Value | None) -> str:
    return "" if level is None else f", {arm.label} {level}"


def _figures(result: Result | None) -> list[tuple[str, float]]:
    if result is None:
        return []
    seconds = result.volatile.get("wall_seconds")
    own = [] if seconds is None else [("wall_seconds", float(str(seconds)))]
    return [*result.figures.items(), *own]


def _versions(asked: Comparison, store: Store) -> set[str]:
    points = [c.best for c in cells(asked, store) if c.best is not None]
    results = (store.read(point.key()) for point in points)
    return {json.dumps(r.versions, sort_keys=True) for r in results if r is not None}
