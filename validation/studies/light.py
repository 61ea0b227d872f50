"""`pib-twin light`: accuracy of the optical network against its error budget.

Three media (static, slow, tissue-like) at three photon levels. The medium
drifts while the network is trained and until it is tested; what the budget
predicts for training frame and test frame stands beside what the frames show.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import xarray as xr
from rich.table import Table

from twin.errors import ConfigError
from twin.files import replacing
from validation.console import console
from validation.physics.pictures import printed
from validation.studies.lightpair import Compared
from validation.studies.lightpicture import Spot, picture
from validation.studies.lightpoint import Point, Task, work
from validation.summary import Figure, Summary, binomial_error, mean_and_error

MEDIA = ("tissue-like", "slow", "static")
"""Those that take longest come first."""

ELECTRONS = (10.0, 100.0, 1000.0)
TOLERANCE = 0.01
SIGMAS = 5.0
CHANCE = 0.1
PICTURE, DATA = "light.png", "light.nc"
MOST_SEEDS = 3
QUICK = Task(medium="static", electrons=1.0, limit=1_500, tests=500, pixels=256)
WHOLE = Task(medium="static", electrons=1.0)
Points = Mapping[Task, Point]


def main(
    out: Path | None,
    seeds: int,
    quick: bool,
    data: Path | None,
    jobs: int,
    command: str,
    *,
    like: Task | None = None,
) -> Summary:
    """Run everything, print the table; summary.json, picture and light.nc go to `out`.

    like: sizes and data set in place of those of the study.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"light: seeds must be 1 to {MOST_SEEDS}, got {seeds}.")
    base = replace(like or (QUICK if quick else WHOLE), data=data)
    tasks = [
        replace(base, medium=medium, electrons=electrons, seed=seed)
        for medium in MEDIA
        for electrons in ELECTRONS
        for seed in range(seeds)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        points = dict(_worked(pool, tasks))
    summary = Summary(command, list(_figures(points)))
    summary.extra = {"quick": quick, **_facts(base), "points": _rows(points)}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        drawn = printed(out / PICTURE, lambda: picture(spots(points), CHANCE))
        save(dataset(points), out / DATA, command)
        summary.extra |= {"pictures": [drawn.name], "data": DATA}
        summary.write(out)
    console.print(table(points))
    if summary.failed:
        console.print(f"[bold red]missed: {', '.join(summary.failed)}[/bold red]")
    return summary


def _worked(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> Iterator[tuple[Task, Point]]:
    for done, (task, point) in enumerate(zip(tasks, pool.map(work, tasks), strict=True), 1):
        later = point.units[0].later
        console.print(
            f"[dim]{done}/{len(tasks)} {task.medium} {task.electrons:g} electrons seed "
            f"{task.seed}: correlation {later.predicted:.3f} predicted, {later.measured:.3f} "
            f"measured; accuracy {point.accuracy:.4f}; {point.wall_seconds:.0f} s[/dim]"
        )
        yield task, point


def _groups(points: Points) -> dict[tuple[str, float], list[Task]]:
    """Tasks that differ in their seed only, static media first."""
    ordered = sorted(points, key=lambda t: (-MEDIA.index(t.medium), t.electrons, t.seed))
    groups: dict[tuple[str, float], list[Task]] = {}
    for task in ordered:
        groups.setdefault((task.medium, task.electrons), []).append(task)
    return groups


def _figures(points: Points) -> Iterator[Figure]:
    for (medium, electrons), tasks in _groups(points).items():
        found, seeds = [points[t] for t in tasks], [t.seed for t in tasks]
        name = f"{medium}_{electrons:g}"
        for kind in ("accuracy", "linear"):
            yield _accuracy(f"{kind}_{name}", [getattr(p, kind) for p in found], found, seeds)
        for number in range(len(found[0].units)):
            unit = f"unit{number + 1}_{name}"
            later = [p.units[number].later for p in found]
            predicted = float(np.mean([c.predicted for c in later]))
            measured, error = _measured(later)
            yield Figure(f"predicted_{unit}", predicted, seeds=seeds)
            yield Figure(f"measured_{unit}", measured, standard_error=error, seeds=seeds)
            holds = all(p.units[number].budget_holds for p in found)
            bound = f"<= {TOLERANCE + SIGMAS * error:.4g}" if holds else None
            yield Figure(f"gap_{unit}", abs(measured - predicted), bound=bound, seeds=seeds)


def _accuracy(name: str, values: list[float], found: Sequence[Point], seeds: list[int]) -> Figure:
    mean, error = mean_and_error(values)
    error = binomial_error(mean, found[0].tests) if error is None else error
    return Figure(name, mean, n=found[0].tests, standard_error=error, seeds=seeds)


def _measured(found: Sequence[Compared]) -> tuple[float, float]:
    """Mean over seeds; its error from the pixels of each, which are independent."""
    errors = [c.standard_error for c in found]
    return float(np.mean([c.measured for c in found])), math.hypot(*errors) / len(errors)


def spots(points: Points) -> list[Spot]:
    """The points of the picture: of the first unit, which sees the images."""
    found = []
    for (medium, electrons), tasks in _groups(points).items():
        own = [points[t] for t in tasks]
        later = [p.units[0].later for p in own]
        measured, error = _measured(later)
        accuracy = _accuracy("", [p.accuracy for p in own], own, [])
        found.append(
            Spot(
                medium=medium,
                electrons=electrons,
                predicted=float(np.mean([c.predicted for c in later])),
                measured=measured,
                measured_error=error,
                accuracy=accuracy.value or 0.0,
                accuracy_error=accuracy.standard_error or 0.0,
                linear=float(np.mean([p.linear for p in own])),
            )
        )
    return found


def table(points: Points) -> Table:
    """One row per medium and photon level, of the first unit."""
    caption = (
        "age: device seconds from training to test frame; predicted, measured: Pearson of the "
        "test frame with the clean pattern at training time, first unit; *: outside the budget's "
        "validity"
    )
    shown = Table(title="Optical network in drifting media", caption=caption, box=None)
    shown.title_justify = shown.caption_justify = "left"
    shown.add_column("medium")
    for name in ("electrons", "age / s", "predicted", "measured", "PIB", "linear", "device h"):
        shown.add_column(name, justify="right", no_wrap=True)
    for spot, tasks in zip(spots(points), _groups(points).values(), strict=True):
        own = [points[t] for t in tasks]
        star = "" if all(p.units[0].budget_holds for p in own) else "*"
        shown.add_row(
            spot.medium,
            f"{spot.electrons:g}",
            f"{np.mean([p.units[0].age_s for p in own]):.0f}",
            f"{spot.predicted:.3f}{star}",
            f"{spot.measured:.3f} ± {spot.measured_error:.3f}",
            f"{spot.accuracy:.1%} ± {spot.accuracy_error:.1%}",
            f"{spot.linear:.1%}",
            f"{np.mean([p.device_seconds for p in own]) / 3600:.2f}",
        )
    return shown


def dataset(points: Points) -> xr.Dataset:
    """All points, labelled: (medium, electrons, seed[, unit])."""
    seeds = sorted({t.seed for t in points})
    units = len(next(iter(points.values())).units)
    media, lights = MEDIA[::-1], ELECTRONS
    outer = (len(media), len(lights), len(seeds))
    flat = {n: np.full(outer, np.nan) for n in ("accuracy", "linear", "device_seconds")}
    kinds = ("later", "fresh", "pair")
    parts = ("predicted", "measured", "standard_error")
    deep = {f"{k}_{p}": np.full((*outer, units), np.nan) for k in kinds for p in parts}
    deep["age_s"] = np.full((*outer, units), np.nan)
    for task, point in points.items():
        at = (media.index(task.medium), lights.index(task.electrons), seeds.index(task.seed))
        for name, values in flat.items():
            values[at] = getattr(point, name)
        for number, seen in enumerate(point.units):
            deep["age_s"][(*at, number)] = seen.age_s
            for kind in kinds:
                for part, value in zip(parts, astuple(getattr(seen, kind)), strict=True):
                    deep[f"{kind}_{part}"][(*at, number)] = value
    dims = ("medium", "electrons", "seed")
    found = xr.Dataset(
        {n: (dims, v) for n, v in flat.items()}
        | {n: ((*dims, "unit"), v) for n, v in deep.items()},
        coords={
            "medium": list(media), "electrons": list(lights), "seed": seeds,
            "unit": [f"unit {i + 1}" for i in range(units)],
        },
    )  # fmt: skip
    for label, array in found.data_vars.items():
        array.attrs["units"] = "s" if label in ("age_s", "device_seconds") else "1"
    return found


def save(data: xr.Dataset, path: Path, command: str) -> None:
    """Write netCDF in one step."""
    with replacing(path) as temporary:
        data.assign_attrs(command=command).to_netcdf(temporary, engine="h5netcdf")


def _facts(base: Task) -> dict[str, object]:
    return {
        "dataset": base.dataset,
        "images": base.limit,
        "test_images": base.tests,
        "shown_again": base.shown,
        "pixels": base.pixels or "as the preset",
        "compared": "Pearson over pixels, mean over training images from the middle of the "
        "training capture: frame at test time with the clean pattern (perfect rig, same medium) "
        "at training time",
    }


def _rows(points: Points) -> list[dict[str, object]]:
    return [
        {
            "medium": task.medium,
            "electrons": task.electrons,
            "seed": task.seed,
            "accuracy": point.accuracy,
            "linear": point.linear,
            "units": [
                {
                    "age_s": seen.age_s,
                    "budget_holds": seen.budget_holds,
                    **{k: vars(getattr(seen, k)) for k in ("later", "fresh", "pair")},
                }
                for seen in point.units
            ],
            "ledger": point.ledger,
            "wall_seconds": point.wall_seconds,
        }
        for task, point in points.items()
    ]
