"""A run's record as one labelled xarray dataset, saved as history.nc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from pib.history import QUANTILES, History
from pib.train import Trainer
from twin.files import replacing

FILE = "history.nc"
UNITS = {
    "loss": "bit",
    "i_yz": "bit",
    "i_xz": "bit",
    "kernel_mean": "1",
    "saturated": "1",
    "probe_accuracy": "1",
    "readout_train_accuracy": "1",
    "readout_test_accuracy": "1",
}


def padded(rows: Sequence[Sequence[Mapping[str, Any]]], name: str) -> np.ndarray:
    """One row per unit, NaN-padded to the longest."""
    longest = max((len(unit) for unit in rows), default=0)
    table = np.full((len(rows), longest), np.nan)
    for index, unit in enumerate(rows):
        table[index, : len(unit)] = [row[name] for row in unit]
    return table


def training_dataset(trainer: Trainer) -> xr.Dataset:
    """Losses, bits, probes and weights of every unit against its iterations."""
    history: History = trainer.history
    names = [unit.name for unit in trainer.network.units]
    steps = {n: padded(history.steps, n) for n in ("loss", "i_yz", "i_xz", "kernel_mean")}
    steps["saturated"] = padded(history.steps, "saturated")
    quantiles = padded_quantiles(history)
    return xr.Dataset(
        {n: (("unit", "record"), v) for n, v in steps.items()}
        | {
            "probe_accuracy": (("unit", "probe"), padded(history.probes, "accuracy")),
            "weight_change": (("unit", "weight_record"), padded(history.weights, "change")),
            "weight_quantiles": (("unit", "weight_record", "quantile"), quantiles),
        },
        coords={
            "unit": names,
            "quantile": list(QUANTILES),
            "iteration": (("unit", "record"), padded(history.steps, "iteration")),
            "probe_iteration": (("unit", "probe"), padded(history.probes, "iteration")),
            "weight_iteration": (
                ("unit", "weight_record"),
                padded(history.weights, "iteration"),
            ),
        },
    )


def padded_quantiles(history: History) -> np.ndarray:
    """(unit, record, quantile), NaN-padded."""
    columns = []
    for index in range(len(QUANTILES)):
        picked = [[{"q": row["quantiles"][index]} for row in unit] for unit in history.weights]
        columns.append(padded(picked, "q"))
    return np.stack(columns, -1)


def add_readouts(
    data: xr.Dataset, curves: Mapping[str, Sequence[tuple[float, float]]]
) -> xr.Dataset:
    """Readout curves: name -> (train, test accuracy) after each epoch."""
    longest = max(map(len, curves.values()))
    table = np.full((2, len(curves), longest), np.nan)
    for index, curve in enumerate(curves.values()):
        table[:, index, : len(curve)] = np.asarray(curve).T
    dims = ("readout", "readout_epoch")
    return data.assign(
        readout_train_accuracy=(dims, table[0]), readout_test_accuracy=(dims, table[1])
    ).assign_coords(readout=list(curves), readout_epoch=np.arange(1, longest + 1))


def add_maps(
    data: xr.Dataset, before: Sequence[Tensor], after: Sequence[Tensor], labels: Tensor
) -> xr.Dataset:
    """Features of some test images before and after training, per unit."""
    found: dict[str, Any] = {"map_label": (("map_sample",), labels.numpy())}
    for index, (first, last) in enumerate(zip(before, after, strict=True), start=1):
        dims = ("map_sample", f"width_{index}")
        found[f"features_before_{index}"] = (dims, first.numpy().astype(np.float32))
        found[f"features_after_{index}"] = (dims, last.numpy().astype(np.float32))
    return data.assign(found)


def add_confusion(
    data: xr.Dataset, truth: Tensor, guess: Tensor, classes: Sequence[str]
) -> xr.Dataset:
    """Counts of test images by true and predicted class."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (truth.numpy(), guess.numpy()), 1)
    return data.assign(confusion=(("true_class", "predicted_class"), counts)).assign_coords(
        true_class=list(classes), predicted_class=list(classes)
    )


def save(data: xr.Dataset, folder: Path, attributes: Mapping[str, str]) -> Path:
    """Write history.nc in one step, units in the attributes."""
    for name, unit in UNITS.items():
        if name in data:
            data[name].attrs["units"] = unit
    data = data.assign_attrs(dict(attributes))
    path = folder / FILE
    with replacing(path) as temporary:
        data.to_netcdf(temporary, engine="h5netcdf")
    return path
