"""What `pib-twin adapt` prints: one row per method, or per policy."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from rich.table import Table

from validation.adaptation.deployment import WAYS
from validation.adaptation.standing import COSTS

SINGLES = {"healthy": "never hit", "before": "before", "after": "right after",
           "scheduled": "schedule ended"}  # fmt: skip


def of_methods(data: xr.Dataset, methods: Sequence[str]) -> Table:
    """Accuracies in per cent, means over seeds, after k passes of what is retrained.

    data: (trained_by, seed, passes). Costs are in the dataset.
    """
    table = Table(title="Accuracy / %, after k passes of what is retrained", title_justify="left")
    table.add_column("method", no_wrap=True)
    singles = [name for name in SINGLES if name in data]
    columns = [(way, float(k)) for way in WAYS if way in data for k in data["passes"].values]
    for name in singles:
        table.add_column(SINGLES[name], justify="right")
    for way, k in columns:
        table.add_column(f"{way} {k:g}", justify="right")
    for index, name in enumerate(methods):
        one = data.isel(trained_by=index)
        cells = [_percent(one[single]) for single in singles]
        cells += [_percent(one[way].sel(passes=k)) for way, k in columns]
        table.add_row(name, *cells)
    return table


def of_policies(data: xr.Dataset) -> Table:
    """Accuracy before treatments and what keeping it cost, means over seeds."""
    table = Table(title="Drift and what is done about it", title_justify="left")
    costs = {name: unit for name, unit in COSTS.items() if name != "waited_seconds"}
    for name in ("policy", "mean / %", "worst / %", "treatments"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for name, unit in costs.items():
        words = name.replace("_", " ")
        table.add_column(words if unit == "1" else f"{words} / {unit}", justify="right")
    for policy in data["policy"].values:
        one = data.sel(policy=policy)
        accuracy = one["accuracy_before"]
        cells = [_percent(accuracy.mean("time")), _percent(accuracy.min("time"))]
        cells += [f"{float(one['treated'].sum('time').mean()):g}"]
        cells += [f"{float(one[name].isel(time=-1).mean()):.4g}" for name in costs]
        table.add_row(str(policy), *cells)
    return table


def _percent(values: xr.DataArray) -> str:
    """The mean over seeds; empty where nothing was measured."""
    mean = float(values.mean())
    return "" if mean != mean else f"{100 * mean:.1f}"
