"""Pictures of `pib-twin adapt`: recovery over passes, and accuracy over device time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

COLOURS = ("#aa3377", "#4477aa", "#228833", "#ee6677", "#222222", "#ccbb44", "#66ccee", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")


def of_fault(data: xr.Dataset, titles: Sequence[str], fault: str, when: str) -> Figure:
    """data: (trained_by, seed, passes). Before, right after, and after k further passes:
    thick where units were retrained, thin where only the readout was."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    ax = figure.subplots()
    passes = data["passes"].values
    goes_on = "scheduled" in data
    places = np.arange(2, 2 + len(passes)) + goes_on
    for index, title in enumerate(titles):
        one = 100 * data.isel(trained_by=index).drop_vars("trained_by").mean("seed")
        look: dict[str, Any] = {
            "color": COLOURS[index % 8],
            "marker": MARKERS[index % 8],
            "markersize": 6,
        }
        start = [float(one["before"]), float(one["after"])]
        if goes_on:
            start.append(float(one["scheduled"]))
        ax.plot(np.arange(len(start)), start, linestyle=":", **look)
        for way, width, label in (
            ("units", 2.2, title),
            ("readout", 1.0, f"{title}: readout only"),
        ):
            if way not in one or not bool(one[way].notnull().any()):
                continue
            ax.plot(places, one[way], linewidth=width, label=label, **look,
                    linestyle=DASHES[0] if way == "units" else DASHES[1])  # fmt: skip
    stages = ["before", "right\nafter", *(["schedule\nended"] if goes_on else [])]
    ticks = [*range(len(stages)), *places]
    ax.set_xticks(ticks, [*stages, *(f"k = {k:g}" for k in passes)])
    ax.set(ylabel="test accuracy / %", xlabel="further passes over the training images, per unit")
    ax.set_title(f"{fault}, switched on in {when}", loc="left", fontsize=10)
    ax.grid(axis="y", alpha=0.4)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def of_drift(data: xr.Dataset) -> Figure:
    """data: (policy, time, seed). Left: accuracy over device time, treatments marked;
    right: what each policy cost in device time and in passes."""
    figure = Figure(figsize=(12.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    days = data["time"].values / 86_400
    means = data.mean("seed")
    for index, policy in enumerate(data["policy"].values):
        one = means.sel(policy=policy)
        look: dict[str, Any] = {"color": COLOURS[index % 8], "linestyle": DASHES[index % 4]}
        before, after = (100 * one[f"accuracy_{when}"].values for when in ("before", "after"))
        teeth = np.stack((before, after), 1).ravel()
        left.plot(np.repeat(days, 2), teeth, label=str(policy), linewidth=1.6, **look)
        hit = one["treated"].values > 0
        left.plot(days[hit], after[hit], color=look["color"],
                  marker=MARKERS[index % 8], linestyle="none")  # fmt: skip
        cost, mean = float(one["device_seconds"][-1]), float(before.mean())
        right.plot(max(cost, 1e-4), mean, color=look["color"], marker=MARKERS[index % 8],
                   markersize=8, linestyle="none")  # fmt: skip
    left.set(xlabel="device time / days", ylabel="test accuracy / %")
    left.set_title("markers: after a treatment", loc="left", fontsize=10)
    right.set_xscale("log")
    right.set(xlabel="device seconds of all treatments (1e-4: none)",
              ylabel="accuracy before treatments, mean / %")  # fmt: skip
    for ax in (left, right):
        ax.grid(alpha=0.4)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=4)
    return figure
