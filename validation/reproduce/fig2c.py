"""Figure 2C: what training does to a memristor network, layer by layer.

Conductances against iterations, and the features of test images in the plane
at four moments. Network, data and moments are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from validation.config import RunConfig, load_config
from validation.reproduce.fig2cpicture import picture
from validation.reproduce.fig2cwork import work
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part
from validation.summary import Figure

ABOUT = "training dynamics of a memristor network: conductances and features, per layer"
MOMENTS = (0.0, 0.05, 0.25, 1.0)
ROWS = 60
BOUNDS = {"probe_gain": "> 0", "silhouette_gain": "> 0", "weight_change": "> 0.1"}


def parts(request: Request) -> list[Part]:
    """One training; quick: the digits, with PCA; full: MNIST, with UMAP."""
    config = configuration(request)
    arguments = {
        "config": config.model_dump(mode="json"),
        "folder": request.folder,
        "method": "pca" if request.quick else "umap",
        "rows": ROWS,
        "moments": list(MOMENTS),
    }
    seeds = request.seeds_or(full=1, quick=1)
    return [Part(f"seed-{seed}", work, {**arguments, "seed": seed}) for seed in seeds]


def configuration(request: Request) -> RunConfig:
    return load_config("memristor-digits" if request.quick else "memristor-mnist")


def drawn(found: Mapping[str, xr.Dataset], request: Request) -> Drawing:
    """The picture is of the first seed; the figures are of all."""
    runs = xr.concat(found.values(), "seed", combine_attrs="override").assign_coords(
        seed=range(len(found))
    )
    figures = list(measured(runs))
    name = configuration(request).data.name
    return Drawing(
        data=runs,
        picture=picture(runs.isel(seed=0), name, request.quick),
        figures=figures,
        verdict=verdict(runs, figures),
        extra={"seconds": [float(part.attrs["seconds"]) for part in found.values()]},
    )


def measured(runs: xr.Dataset) -> list[Figure]:
    """Gains from the first iteration to the last, mean over seeds, per unit."""
    seeds = runs["seed"].values.tolist()
    rows = []
    for index in range(runs.sizes["unit"]):
        one = runs.isel(unit=index)
        gains = {
            "probe_gain": last(one["probe_accuracy"]) - one["probe_accuracy"].values[:, 0],
            "silhouette_gain": last(one["silhouette"]) - one["silhouette"].values[:, 0],
            "weight_change": last(one["weight_change"]),
            "weight_change_rank_correlation": np.array([monotone(run) for run in _by_seed(one)]),
        }
        for name, values in gains.items():
            error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
            rows.append(
                Figure(
                    f"{name}_unit_{index + 1}", float(values.mean()), n=len(values),
                    bound=BOUNDS.get(name), standard_error=error, seeds=seeds,
                )
            )  # fmt: skip
    return rows


def _by_seed(one: xr.Dataset) -> list[xr.Dataset]:
    return [one.isel(seed=i) for i in range(one.sizes["seed"])]


def last(values: xr.DataArray) -> np.ndarray[Any, Any]:
    """The last number of each seed that is no padding."""
    return np.array([row[np.isfinite(row)][-1] for row in values.values])


def monotone(run: xr.Dataset) -> float:
    """Rank correlation of the weights' distance from the start with iterations."""
    t, change = run["iteration"].values, run["weight_change"].values
    keep = np.isfinite(t)
    return float(spearmanr(t[keep], change[keep]).statistic)


def verdict(runs: xr.Dataset, figures: list[Figure]) -> str:
    """What was seen, computed from the numbers."""
    told = []
    for index, unit in enumerate(runs["unit"].values):
        one = runs.isel(unit=index)
        probe = one["probe_accuracy"].values[:, 0].mean(), last(one["probe_accuracy"]).mean()
        parted = one["silhouette"].values[:, 0].mean(), last(one["silhouette"]).mean()
        told.append(
            f"{unit}: a linear probe goes from {100 * probe[0]:.1f} to {100 * probe[1]:.1f} %, "
            f"the silhouette of the classes from {parted[0]:.2f} to {parted[1]:.2f}, the weights "
            f"move by {100 * last(one['weight_change']).mean():.0f} % of their norm"
        )
    failed = [f.name for f in figures if f.holds is False]
    matched = (
        "As in the paper, weights move away from their start and classes separate in every layer."
        if not failed
        else f"Unlike in the paper, not every layer improves: {', '.join(failed)}."
    )
    return f"{matched} {'; '.join(told)}."
