"""The picture of training dynamics: a row per layer, conductances and four maps."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from validation.maps import look


def picture(run: xr.Dataset, name: str, quick: bool) -> Figure:
    """run: of one seed. Left: all conductance differences asked for, against
    iterations; right: features of test images at four moments."""
    units, moments = run.sizes["unit"], run.sizes["moment"]
    figure = Figure(figsize=(3.6 + 2.15 * moments, 0.7 + 2.45 * units), layout="constrained")
    grid = figure.subplots(units, moments + 1, squeeze=False, width_ratios=[1.9, *[1.0] * moments])
    for index in range(units):
        one = run.isel(unit=index)
        _conductances(grid[index, 0], one, figure)
        for moment in range(moments):
            _map(grid[index, moment + 1], one.isel(moment=moment), str(run.attrs["method"]))
    _legend(figure, run)
    short = " (quick: small data)" if quick else ""
    figure.suptitle(f"Training dynamics on {name}{short}", fontsize=11, x=0.01, ha="left")
    return figure


def _conductances(ax: Axes, one: xr.Dataset, figure: Figure) -> None:
    keep = np.isfinite(one["iteration"].values)
    t, share = one["iteration"].values[keep], one["weight_share"].values[keep]
    siemens = one["bin"].values * float(one["full_scale"])
    image = ax.pcolormesh(
        t, 1e6 * siemens, 100 * share.T, cmap="Greys", shading="nearest",
        norm=LogNorm(1e-2, 20, clip=True), rasterized=True,
    )  # fmt: skip
    ax.set(ylabel="G⁺ - G⁻ / µS", xlabel="iteration")
    ax.set_title(f"{one['unit'].item()}: conductances", fontsize=9, loc="left")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    beside = ax.twinx()
    beside.plot(t, 100 * one["weight_change"].values[keep], color="#aa3377", linewidth=1.6)
    beside.set_ylabel("weights moved / % of norm", color="#aa3377")
    beside.set_ylim(bottom=0)
    figure.colorbar(image, ax=ax, location="left", label="% of cells in a bin", aspect=30)


def _map(ax: Axes, one: xr.Dataset, method: str) -> None:
    points, labels = one["map_point"].values, one["map_label"].values.astype(int)
    for code in np.unique(labels):
        x, y = points[labels == code].T
        ax.scatter(x, y, s=9, linewidths=0, alpha=0.75, rasterized=True, **look(int(code)))
        ax.text(
            float(np.median(x)), float(np.median(y)), str(code), fontsize=7.5, weight="bold",
            ha="center", va="center",
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.6, "linewidth": 0},
        )  # fmt: skip
    ax.xaxis.set_major_locator(NullLocator())
    ax.yaxis.set_major_locator(NullLocator())
    ax.set_title(f"iteration {int(one['map_iteration'])}", fontsize=9, loc="left")
    probe, parted = float(one["probe_accuracy"]), float(one["silhouette"])
    ax.set_xlabel(f"{method.upper()}; probe {100 * probe:.1f} %\nsilhouette {parted:.2f}")


def _legend(figure: Figure, run: xr.Dataset) -> None:
    names = [str(name) for name in np.atleast_1d(run.attrs["classes"])]
    handles = [
        Line2D([], [], linestyle="none", markersize=5, label=name, **look(code))
        for code, name in enumerate(names)
    ]
    figure.legend(
        handles=handles, loc="outside upper right", ncols=len(names), frameon=False,
        handletextpad=0.0, columnspacing=0.7, title="class", title_fontsize=8, fontsize=8,
    )  # fmt: skip
