"""`pib-twin compare`: training methods on the same physics at equal cost.

First every method is tuned in every regime, then the best trials run with all
seeds. What is computed is kept: a killed comparison goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import xarray as xr

from twin.files import replacing, write_atomic
from validation import datasets
from validation.config import load_config
from validation.console import console
from validation.studies import collect
from validation.studies.compare import chosen, tables
from validation.studies.compare.catalogue import comparison
from validation.studies.compare.data import dataset, failures
from validation.studies.compare.picture import picture
from validation.studies.compare.plan import Comparison
from validation.studies.engine import run
from validation.studies.estimate import Estimate, left
from validation.studies.points import Point
from validation.studies.progress import Tally, watcher
from validation.studies.store import Store
from validation.studies.workers import Pool
from validation.summary import Summary

DATASET, PICTURE, TABLE = "compare.nc", "compare.png", "compare.md"
NO_DATE = {"Software": None}


def main(
    name: str,
    out: Path | None,
    quick: bool,
    seeds: int | None,
    jobs: int,
    data: Path | None,
    command: str,
    progress: str = "live",
    retry_failed: bool = False,
    arms: Sequence[str] = (),
) -> Summary:
    """Compute what is missing in `out`; dataset, table, picture and summary go there.

    name: see catalogue.COMPARISONS. arms: only these; the folder may be shared with others.
    progress: see `progress.watcher`. Raises
    UnknownName for the name, DataError for the data, before anything runs.
    """
    asked = comparison(name, quick, seeds, arms)
    _require_data(asked, data)
    folder = None if data is None else str(data)
    out = out or Path("runs") / f"compare-{name}{'-quick' if quick else ''}"
    store, live = Store(out), progress == "live"
    with Pool(jobs) as pool:
        for what in ("trials", "all seeds"):
            points = chosen.trials(asked) if what == "trials" else chosen.finals(asked, store)
            points = [replace(point, data=folder) for point in points]
            if live:
                console.print(announced(asked, what, points, store, jobs, retry_failed))
            with watcher(progress, Tally(len(points))) as watch:
                run(points, out, pool, watch, retry_failed=retry_failed)
    found = dataset(asked, store)
    return _kept(asked, found, failures(asked, store), out, command, progress)


def announced(
    asked: Comparison, what: str, points: Sequence[Point], store: Store, jobs: int, retry: bool
) -> str:
    """What is about to be computed and how long it takes, as far as is known."""
    waiting = left(points, store, retry)
    known = (store.read(point.key()) for point in points)
    estimate = Estimate(result for result in known if result is not None)
    size = f"{len(points)} points ({what}), {len(points) - len(waiting)} of them there"
    note = (
        " QUICK: one seed, one trial, few images: shows that it works, not who is better."
        if (asked.quick)
        else ""
    )
    return f"{asked.name}: {size}; {estimate.told(waiting, jobs)}.{note}"


def _require_data(asked: Comparison, data: Path | None) -> None:
    for base in dict.fromkeys(arm.base for arm in asked.arms):
        datasets.load(load_config(base).data.name, data_dir=data, limit=1000)


def _kept(
    asked: Comparison, found: xr.Dataset, missing: Sequence[tuple[str, str]], out: Path,
    command: str, progress: str,
) -> Summary:  # fmt: skip
    found = found.assign_attrs(command=command)
    collect.save(found, out / DATASET)
    words = tables.page(asked, found, missing, command)
    write_atomic(out / TABLE, words.encode())
    with replacing(out / PICTURE) as temporary:
        picture(asked, found).savefig(temporary, format="png", dpi=160, metadata=NO_DATE)
    summary = Summary(command, list(tables.figures(asked, found)))
    summary.extra = {
        "quick": asked.quick,
        "missing": [list(row) for row in missing],
        "verdict": tables.verdict(asked, found),
        "trials_per_regime": asked.trials,
    }
    summary.write(out)
    if progress != "json-lines":
        console.print(words, markup=False, soft_wrap=True)
        console.print(f"table, picture and data in {out}", markup=False)
    return summary
