"""From a folder of results to one labelled dataset, or a tidy table.

Points without a sound result are NaN with the status "missing".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from twin.files import replacing
from validation.studies.points import VOLATILE, Point, Value, unit_of
from validation.studies.store import Result, Store
from validation.studies.study import Study

DATASET, TABLE = "dataset.nc", "table.csv"
TRAINED_BY = "trained_by"
"""The dimension of methods. Not "method": data.sel(method="pib") means another thing to
xarray and picks nothing."""
MISSING = "missing"


def collect(folder: Path | str, study: Study) -> xr.Dataset:
    """All figures of a study over the dimensions method, each axis, and seed.

    status: "done", "failed" or "missing"; reason: why it failed. Figures carry
    their units; the volatile ones (named in the attribute "volatile") are no
    part of a comparison, see :func:`comparable`.
    """
    sizes = [len(study.methods), *map(len, study.axes.values()), len(study.seeds)]
    dims = (TRAINED_BY, *study.axes, "seed")
    status = np.full(study.size, MISSING, object)
    reason = np.full(study.size, "", object)
    host = np.full(study.size, "", object)
    figures: dict[str, np.ndarray] = {}
    versions: set[str] = set()
    for index, (_, result) in enumerate(found(folder, study.points())):
        if result is None:
            continue
        status[index], reason[index] = result.status, _plain(result.reason)
        host[index] = str(result.volatile.get("host", ""))
        versions.add(json.dumps(result.versions, sort_keys=True))
        for name, value in _recorded(result, study.record):
            figures.setdefault(name, np.full(study.size, np.nan))[index] = value
    flat = {"status": status, "reason": reason, **dict(sorted(figures.items())), "host": host}
    variables = {
        name: (dims, values.reshape(sizes), _attributes(name)) for name, values in flat.items()
    }
    coords = {TRAINED_BY: list(study.methods), "seed": list(study.seeds)}
    axes = {name: _coordinate(values) for name, values in study.axes.items()}
    return xr.Dataset(variables, {**coords, **axes}, _provenance(study, versions))


def table(folder: Path | str, points: Iterable[Point]) -> pd.DataFrame:
    """One row per point: method, seed, settings, status, figures, reason."""
    rows: list[dict[str, Any]] = []
    for point, result in found(folder, points):
        row: dict[str, Any] = {TRAINED_BY: point.method, "seed": point.seed, **dict(point.settings)}
        row["status"] = MISSING if result is None else result.status
        if result is not None:
            row |= {**result.figures, **result.volatile, "reason": result.reason}
        rows.append(row)
    return pd.DataFrame(rows)


def found(folder: Path | str, points: Iterable[Point]) -> Iterable[tuple[Point, Result | None]]:
    """Each point with its result, None if there is no sound one."""
    store = Store(folder)
    for point in points:
        yield point, store.read(point.key())


def comparable(data: xr.Dataset) -> xr.Dataset:
    """The dataset without what differs between two runs of the same study."""
    data = data.assign_attrs(command="")
    return data.drop_vars(str(data.attrs["volatile"]).split(), errors="ignore")


def save(data: xr.Dataset, path: Path) -> Path:
    """Write a netCDF file in one step."""
    with replacing(path) as temporary:
        data.to_netcdf(temporary, engine="h5netcdf")
    return path


def _recorded(result: Result, record: Sequence[str]) -> Iterable[tuple[str, float]]:
    for name, value in result.figures.items():
        if not record or name in record:
            yield name, value
    if "wall_seconds" in result.volatile:
        yield "wall_seconds", float(result.volatile["wall_seconds"])


def _attributes(name: str) -> dict[str, str]:
    if name in ("status", "reason", "host"):
        return {}
    return {"units": unit_of(name)}


def _coordinate(values: Sequence[Value]) -> np.ndarray:
    if isinstance(values[0], str):
        return np.array(values, object)
    return np.array(values)


def _plain(text: str) -> str:
    """netCDF keeps no zeros inside a text."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _provenance(study: Study, versions: set[str]) -> dict[str, str]:
    return {
        "about": _plain(study.about),
        "base": _plain(study.base),
        "when": study.when,
        "limit": "" if study.limit is None else str(study.limit),
        "quick": str(study.quick).lower(),
        "versions": "\n".join(sorted(versions)),
        "volatile": " ".join(sorted(VOLATILE)),
    }
