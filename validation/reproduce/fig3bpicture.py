"""The picture of figure 3B: trajectories in the information plane, learning curves."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.config import RunConfig

DASHES = ("-", (0, (6, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (2, 1)), (0, (1, 1)), ":", "-")


def picture(runs: xr.Dataset, config: RunConfig, width: int, quick: bool) -> Figure:
    """runs: (seed, unit, ...). A row per unit: the plane of the first seed with
    the others faint, both informations against iterations, readout curves."""
    units = runs.sizes["unit"]
    figure = Figure(figsize=(12.0, 0.7 + 3.3 * units), layout="constrained")
    grid = figure.subplots(units, 3, squeeze=False, width_ratios=(1.15, 1, 1.15))
    for index in range(units):
        one = runs.isel(unit=index)
        plane, course, readout = grid[index]
        _plane(plane, one, width, figure)
        _course(course, one.isel(seed=0), width)
        _readouts(readout, one.isel(seed=0))
    goal = config.objective
    short = "; quick: few images" if quick else ""
    figure.suptitle(
        f"Optical network on {config.data.name}: alpha {goal.alpha:g}, beta {goal.beta:g}, "
        f"kernel width {goal.sigma:g}{short}",
        fontsize=11, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def _columns(run: xr.Dataset, width: int) -> list[np.ndarray]:
    columns = [np.asarray(run[name].values, float) for name in ("iteration", "i_yz", "i_xz")]
    keep = np.all([np.isfinite(column) for column in columns], axis=0)
    kernel = np.ones(width) / width
    return [np.convolve(column[keep], kernel, "valid") for column in columns]


def _plane(ax: Axes, one: xr.Dataset, width: int, figure: Figure) -> None:
    for seed in range(1, one.sizes["seed"]):
        _, y, x = _columns(one.isel(seed=seed), width)
        ax.plot(x, y, color="#bbbbbb", linewidth=0.8)
    _, raw_y, raw_x = _columns(one.isel(seed=0), 1)
    ax.plot(raw_x, raw_y, ".", markersize=2.5, color="#999999")
    t, y, x = _columns(one.isel(seed=0), width)
    ax.plot(x, y, color="#888888", linewidth=0.8)
    dots = ax.scatter(x, y, c=t, cmap="viridis", s=14, zorder=3)
    for name, at, marker in (("start", 0, "s"), ("end", -1, "D")):
        ax.plot(x[at], y[at], marker, color="#aa3377", markersize=7, zorder=4)
        ax.annotate(name, (x[at], y[at]), (7, 5), textcoords="offset points", fontsize=9)
    ax.set(xlabel="I(X;Z) / bit", ylabel="I(Y;Z) / bit")
    ax.set_title(f"{one['unit'].item()}: information plane", fontsize=10, loc="left")
    figure.colorbar(dots, ax=ax, label="iteration", aspect=30)


def _course(ax: Axes, run: xr.Dataset, width: int) -> None:
    t, y, x = _columns(run, width)
    ax.plot(t, y - y[0], color="#4477aa", linewidth=2, label="I(Y;Z)")
    ax.plot(t, x - x[0], color="#ee6677", linewidth=2, linestyle="--", label="I(X;Z)")
    ax.axhline(0, color="#888888", linewidth=0.7)
    ax.set(xlabel="iteration", ylabel="change from the start / bit")
    ax.set_title("both against iterations", fontsize=10, loc="left")
    ax.legend(frameon=False)


def _readouts(ax: Axes, run: xr.Dataset) -> None:
    at = run["snapshot_iteration"].values
    known = np.flatnonzero(np.isfinite(at))
    colours = mpl.colormaps["viridis_r"](np.linspace(0.12, 1.0, len(known)))
    for place, (snapshot, colour) in enumerate(zip(known, colours, strict=True)):
        curve = 100 * run["readout_accuracy"].values[snapshot]
        ax.plot(
            run["readout_epoch"].values, curve, color=colour,
            linestyle=DASHES[place % len(DASHES)], linewidth=1.6, label=f"{at[snapshot]:.0f}",
        )  # fmt: skip
    ax.set(xlabel="epoch of the readout", ylabel="test accuracy / %")
    ax.set_title("readout after … PIB iterations", fontsize=10, loc="left")
    ax.grid(axis="y", alpha=0.4)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")
