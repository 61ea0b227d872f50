"""The picture of figure 2D: four data sets above, two kinds of broken columns below."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from validation.reproduce.fig2dtables import NAMES, REPAIRS, SETS

SHOWN: dict[str, dict[str, Any]] = {
    "pib": {"color": "#aa3377", "marker": "o", "label": "PIB in the loop"},
    "deployed": {"color": "#4477aa", "marker": "s", "label": "in silico, deployed"},
    "deployed_retrained": {
        "color": "#4477aa", "marker": "s", "markerfacecolor": "none",
        "label": "the same, readout retrained",
    },
    "converged_retrained": {
        "color": "#222222", "marker": "D", "markerfacecolor": "none",
        "label": "trained long, deployed, readout retrained",
    },
    "lce": {"color": "#228833", "marker": "^", "label": "local cross-entropy in the loop"},
}  # fmt: skip
LINES: dict[str, dict[str, Any]] = {
    "pib": {"color": "#aa3377", "marker": "o", "linewidth": 2.2},
    "pib_masked": {"color": "#aa3377", "marker": "o", "ls": ":", "markerfacecolor": "white"},
    "pib_readout": {"color": "#ee99cc", "marker": "v", "ls": "--"},
    "deployed_retrained": {"color": "#4477aa", "marker": "s", "linewidth": 2.2},
    "deployed_masked": {"color": "#4477aa", "marker": "s", "ls": ":", "markerfacecolor": "white"},
    "lce": {"color": "#228833", "marker": "^", "linewidth": 1.2},
    "lce_masked": {"color": "#228833", "marker": "^", "ls": ":", "markerfacecolor": "white"},
}
LOST: dict[str, dict[str, Any]] = {
    "pib_before": {"color": "#aa3377", "marker": "x", "ls": "--"},
    "deployed": {"color": "#4477aa", "marker": "+", "ls": "--"},
}


def picture(table: xr.Dataset, quick: bool) -> Figure:
    """table: accuracy (dataset, way, seed), mended (kind, fraction, repair, seed)."""
    figure = Figure(figsize=(11.5, 8.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.35))
    top, low = halves
    short = "; quick: few images" if quick else ""
    top.suptitle(
        f"Test accuracy on the chip, mean ± s.d. of seeds (dots: each){short}",
        fontsize=11, x=0.01, ha="left",
    )  # fmt: skip
    axes = top.subplots(1, len(SETS))
    for units, (ax, name) in zip((1, 2, 3, 3), zip(axes, SETS, strict=True), strict=True):
        _set(ax, table["accuracy"].sel(dataset=name), f"{NAMES[name]}\n"
             f"{_many(units, 'unit')}; {_seeds(table, name)}")  # fmt: skip
    axes[0].set_ylabel("accuracy / %")
    handles = [Line2D([], [], linestyle="none", **look) for look in SHOWN.values()]
    top.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    _broken(low, table)
    return figure


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count > 1 else "")


def _seeds(table: xr.Dataset, name: str) -> str:
    """How many seeds the ways shown have."""
    counts = (int(table["seeds_used"].sel(dataset=name, way=way)) for way in SHOWN)
    used = [count for count in counts if count]
    few = "" if min(used) == max(used) else f" ({min(used)} long, local)"
    return f"{_many(max(used), 'seed')}{few}"


def _set(ax: Axes, one: xr.DataArray, title: str) -> None:
    for at, (way, look) in enumerate(SHOWN.items()):
        values = 100 * one.sel(way=way).dropna("seed").values
        if not len(values):
            continue
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        shown = {key: value for key, value in look.items() if key != "label"}
        ax.errorbar(at, values.mean(), spread, linestyle="none", markersize=8, capsize=4, **shown)
        ax.plot(np.full(len(values), at + 0.22), values, ".", markersize=3, color="#888888")
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], xlim=(-0.6, len(SHOWN) - 0.3))
    ax.margins(y=0.15)
    ax.grid(axis="y", alpha=0.4)


def _broken(part: Any, table: xr.Dataset) -> None:
    """Above: those that keep working; below: without treatment."""
    kinds = table["kind"].values
    seeds = table["mended"].dropna("seed", how="all").sizes["seed"]
    part.suptitle(f"Adaptation to a broken ADC, MNIST; {_many(seeds, 'seed')}",
                  fontsize=11, x=0.01, ha="left")  # fmt: skip
    axes = part.subplots(2, len(kinds), sharex="col", sharey="row", height_ratios=(2.4, 1))
    for column, kind in enumerate(kinds):
        one = table["mended"].sel(kind=kind).dropna("seed", how="all")
        one = one.dropna("fraction", how="all")
        percent = 100 * one["fraction"].values
        for ax, looks in zip(axes[:, column], (LINES, LOST), strict=True):
            for repair, look in looks.items():
                values = 100 * one.sel(repair=repair)
                spread = values.std("seed", ddof=1) if values.sizes["seed"] > 1 else 0 * percent
                ax.errorbar(percent, values.mean("seed"), spread, markersize=6, capsize=3,
                            label=REPAIRS[repair], **look)  # fmt: skip
            ax.grid(axis="y", alpha=0.4)
            ax.set_xticks(percent, [f"{p:.0f}" for p in percent])
        axes[0, column].set_title(f"columns {kind}", fontsize=10)
        axes[1, column].set_xlim(percent.min() - 5, percent.max() + 5)
        axes[1, column].set_xlabel(f"columns {kind} / %")
    axes[0, 0].set_ylabel("accuracy after repair / %")
    axes[1, 0].set_ylabel("not treated / %")
    handles: list[Any] = []
    labels: list[str] = []
    for ax in axes[:, 0]:
        more, names = ax.get_legend_handles_labels()
        handles += more
        labels += names
    part.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8.5)
