"""The picture of cheap writes: accuracy against what training cost, three ways to count."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from validation.figures import COLOURS

REWRITTEN = "every 1, all cells rewritten"
"""The reference that writes cells whose target is what it was, too."""

FAMILIES = {
    "every": ("every k-th step", "o", "-", COLOURS[0]),
    "threshold": ("cells beyond a threshold", "s", "--", COLOURS[1]),
    "sign": ("one fixed pulse, by sign", "^", ":", COLOURS[2]),
    "both": ("both: every k-th step, threshold", "D", "", COLOURS[5]),
    "all": ("every step, all cells rewritten", "X", "", COLOURS[3]),
}
AXES = {
    "cells": "conductances written",
    "joules": "energy of writes and passes / J",
    "device_seconds": "device time of writes and passes / s",
}


NARROW = 3.0
"""Costs that differ by less are drawn on a linear axis: a logarithmic one has no ticks there."""


def picture(data: xr.Dataset, quick: bool) -> Figure:
    """A point per way to write: mean over seeds, bars from the worst to the best seed."""
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    row = figure.subplots(1, 3, sharey=True)
    for ax, name in zip(row, AXES, strict=True):
        _trade(ax, data, name)
    row[0].set_ylabel("test accuracy / %")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=8)
    what = "digits (quick)" if quick else "MNIST, 10,000 images"
    figure.suptitle(
        f"What memristor training costs in writes: {what}", x=0.01, ha="left", fontsize=11
    )
    return figure


def family(policy: str) -> str:
    """Which kind of saving a way to write is."""
    if policy == REWRITTEN:
        return "all"
    return "both" if "," in policy else policy.split()[0]


def _trade(ax: Axes, data: xr.Dataset, name: str) -> None:
    accuracy, cost = 100 * data["accuracy"], data[name].mean("seed")
    for kind, (label, marker, line, colour) in FAMILIES.items():
        mine = [p for p in data["policy"].values if family(str(p)) == kind]
        mean, x = accuracy.sel(policy=mine).mean("seed"), cost.sel(policy=mine)
        low, high = accuracy.sel(policy=mine).min("seed"), accuracy.sel(policy=mine).max("seed")
        ax.errorbar(
            x, mean, yerr=[mean - low, high - mean], label=label, marker=marker, color=colour,
            linestyle=line, linewidth=1.1, markersize=5, capsize=2,
        )  # fmt: skip
        if kind == "all":
            continue
        for policy, at, height in zip(mine, x.values, mean.values, strict=True):
            number = str(policy).removeprefix(kind).replace("every ", "").replace("threshold ", "")
            beside = (4, {"every": 4, "sign": -10}.get(kind, -3))
            ax.annotate(number.strip(), (at, height), xytext=beside,
                        textcoords="offset points", fontsize=7, color=colour)  # fmt: skip
    ax.set(xlabel=AXES[name])
    if float(cost.max()) > NARROW * float(cost.min()):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0e}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(color="0.9", linewidth=0.5, which="both")
