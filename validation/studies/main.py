"""`pib-twin study`: from a TOML file to a folder of results, a dataset and a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from twin.errors import ConfigError, UnknownName, nearest
from twin.files import write_atomic
from validation.console import console
from validation.studies import engine
from validation.studies.estimate import Estimate, left
from validation.studies.points import Point
from validation.studies.progress import Tally, watcher
from validation.studies.store import Result, Store
from validation.studies.study import Study, load_study
from validation.studies.workers import Dask, Pool
from validation.summary import Figure, Summary, mean_and_error

if TYPE_CHECKING:
    import xarray as xr

EXECUTORS = ("pool", "dask")
SHOWN_FAILURES = 10
COPY = "study.toml"


def main(
    file: Path,
    out: Path | None = None,
    jobs: int = 2,
    executor: str = "pool",
    scheduler: str | None = None,
    mode: str = "live",
    retry_failed: bool = False,
    data: Path | None = None,
    command: str = "",
) -> Summary:
    """Check the file, compute what is missing, leave dataset.nc, table.csv and
    summary.json in `out`; returns the summary.

    executor: "pool" (jobs processes here) or "dask" (scheduler: its address).
    mode: "live", "quiet" or "json-lines". data: folder with data files.
    Raises KeyboardInterrupt after saying how to go on.
    """
    study = load_study(file, None if data is None else str(data.resolve()))
    folder = out or Path("runs") / file.stem
    points = list(study.points())
    begun = time.monotonic()
    with _workers(executor, scheduler, jobs) as workers:
        tally = compute(
            points, folder, workers, mode, retry_failed, study.record[0] if study.record else None
        )
    write_atomic(folder / COPY, file.read_bytes())
    return _finish(study, points, folder, tally, command, time.monotonic() - begun, mode)


def compute(
    points: Sequence[Point],
    folder: Path,
    workers: Pool | Dask,
    mode: str = "live",
    retry_failed: bool = False,
    figure: str | None = None,
) -> Tally:
    """Run points with an estimate before and progress meanwhile; how many there were."""
    store, say = Store(folder), _Sayer(mode)
    missing = left(points, store, retry_failed)
    estimate = Estimate(store.results())
    say(f"{len(points)} points, {len(points) - len(missing)} of them in {folder} already: "
        f"{estimate.told(missing, workers.count)}")  # fmt: skip
    tally = Tally(len(points), figure or "accuracy")
    with watcher(mode, tally) as watch:
        first = _Estimating(watch, estimate, missing, workers.count, say)
        try:
            engine.run(points, folder, workers, first, retry_failed=retry_failed)
        except KeyboardInterrupt:
            say(f"stopped: {tally.done + tally.failed} of {len(points)} points are kept in "
                f"{folder}; the same command goes on from there")  # fmt: skip
            raise
    return tally


def _workers(
    executor: str, scheduler: str | None, jobs: int
) -> AbstractContextManager[Pool | Dask]:
    if executor not in EXECUTORS:
        raise UnknownName(f"no executor is called {executor!r}. {nearest(executor, EXECUTORS)}")
    if executor == "dask":
        if scheduler is None:
            raise ConfigError(
                "--executor dask needs --scheduler ADDRESS, e.g. tcp://10.0.0.1:8786. Start one "
                "with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`."
            )
        return Dask(scheduler)
    if scheduler is not None:
        raise ConfigError("--scheduler goes with --executor dask; a pool has none.")
    return Pool(jobs)


class _Sayer:
    """Sentences for a person; nothing where a program reads, or nobody."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def __call__(self, text: str) -> None:
        if self._mode == "live":
            console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Estimating:
    """Passes results on; where nothing was known, says what the first points tell."""

    def __init__(
        self, watch: engine.Watch, estimate: Estimate, missing: list[Point], jobs: int, say: _Sayer
    ) -> None:
        self._watch, self._estimate, self._say = watch, estimate, say
        self._missing, self._jobs = missing, jobs
        self._told = estimate.knows(missing)

    def seen(self, result: Result, kept: bool) -> None:
        self._watch.seen(result, kept)
        if not self._told and not kept and result.status == "done":
            self._told = True
            self._estimate.add(result)
            self._say(f"after the first: {self._estimate.told(self._missing, self._jobs)}")


def _finish(
    study: Study, points: Sequence[Point], folder: Path, tally: Tally, command: str,
    seconds: float, mode: str,
) -> Summary:  # fmt: skip
    # Late: they take longer to import than a pool to start.
    from validation.studies import collect as collecting

    dataset = collecting.collect(folder, study).assign_attrs(command=command)
    collecting.save(dataset, folder / collecting.DATASET)
    rows = collecting.table(folder, points)
    write_atomic(folder / collecting.TABLE, rows.to_csv(index=False).encode())
    summary = Summary(command, _figures(study, dataset, tally, seconds))
    failed = rows[rows["status"] == "failed"]
    summary.extra = {
        "about": study.about,
        "base": study.base,
        "axes": {name: list(values) for name, values in study.axes.items()},
        "failed": failed.to_dict("records"),
    }
    summary.write(folder)
    if mode != "json-lines":
        console.print(summary.table())
        for row in summary.extra["failed"][:SHOWN_FAILURES]:
            told = ", ".join(f"{n}={row[n]}" for n in (collecting.TRAINED_BY, *study.axes, "seed"))
            console.print(f"failed: {told}: {row['reason']}", markup=False, highlight=False)
        if len(failed) > SHOWN_FAILURES:
            console.print(f"... and {len(failed) - SHOWN_FAILURES} more, see summary.json")
        console.print(f"results in {folder}", markup=False)
    return summary


def _figures(study: Study, dataset: xr.Dataset, tally: Tally, seconds: float) -> list[Figure]:
    """Counts, the best setting by its mean over seeds, and times."""
    rows = [
        Figure("points", tally.total),
        Figure("points done", tally.done),
        Figure("points failed", tally.failed),
        Figure("points computed now", tally.computed),
    ]
    if tally.best is not None:
        mean = dataset[tally.figure].mean("seed", skipna=False)
        if bool(mean.notnull().any()):
            where = mean.argmax(...)
            values = dataset[tally.figure].isel(where).values.tolist()
            at = {str(d): mean[d].values[int(i)] for d, i in where.items()}
            told = ", ".join(f"{name}={value}" for name, value in at.items())
            unit = str(dataset[tally.figure].attrs["units"])
            value, error = mean_and_error(values)
            name = f"best mean {tally.figure}: {told}"
            rows.append(Figure(name, value, unit, n=len(values), standard_error=error,
                               seeds=study.seeds))  # fmt: skip
    rows.append(Figure("wall_seconds", seconds, "s"))
    return rows
