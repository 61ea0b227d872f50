"""A panel for each arm: every method's mean over seeds with its spread."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from validation.figures import COLOURS
from validation.pngstyle import style
from validation.studies.collect import TRAINED_BY
from validation.studies.compare.plan import Arm, Comparison
from validation.studies.compare.tables import TITLES, named

COLUMNS = 3
MARKERS = "osD^vPX*<>"
TONES = (*COLOURS, "#222222")
"""One for each of eight methods: two in one colour were mistaken for each other."""
DASHED = ("backprop", "backprop-retrained", "elm")
"""Methods that do not train on the physics: references."""


def picture(asked: Comparison, found: xr.Dataset) -> Picture:
    """Means over seeds, bars of one standard deviation; arms of one level as dots."""
    count = len(asked.arms)
    drawn = [arm for arm in asked.arms if arm.path and len(arm.levels) > 1]
    rows = math.ceil(count / COLUMNS)
    # A single panel has a title and a legend that need more room than it.
    size = (max(8.0, 4.2 * min(count, COLUMNS) + 0.6), 3.3 * rows + 0.9)
    with style():
        figure = Picture(figsize=size, layout="constrained")
        panels = figure.subplots(rows, min(count, COLUMNS), squeeze=False).ravel()
        for ax, arm in zip(panels, asked.arms, strict=False):
            lines = arm in drawn
            (_lines if lines else _dots)(ax, asked, found, arm)
            ax.set_title(arm.name if lines or not arm.path else f"{arm.name}: {arm.levels[0]:g}")
        for ax in panels[count:]:
            ax.set_axis_off()
        handles = {
            # Dots have their names beside them.
            label: handle
            for ax, arm in zip(panels, asked.arms, strict=False)
            if arm in drawn
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(
                handles.values(), handles.keys(), loc="outside lower left", ncols=4, fontsize=8
            )
        note = " (quick: one seed, few images)" if asked.quick else ""
        figure.suptitle(f"{asked.about}{note}", x=0.01, ha="left", fontsize=11)
    return figure


def _lines(ax: Axes, asked: Comparison, found: xr.Dataset, arm: Arm) -> None:
    levels = np.arange(len(arm.levels))
    places = [float(value) for value in arm.levels]
    for index, method, means, spreads in _rows(asked, found, arm):
        ax.errorbar(
            places, means[levels], yerr=spreads[levels], label=TITLES.get(method, method),
            color=TONES[index % len(TONES)], marker=MARKERS[index % len(MARKERS)],
            linestyle="--" if method in DASHED else "-", linewidth=1.2, markersize=4, capsize=2,
        )  # fmt: skip
    if arm.log:
        ax.set_xscale("log")
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.minorticks_off()
    ax.set(xlabel=arm.label, ylabel=_label(asked))


def _dots(ax: Axes, asked: Comparison, found: xr.Dataset, arm: Arm) -> None:
    names = []
    for row, (index, method, means, spreads) in enumerate(_rows(asked, found, arm)):
        ax.errorbar(
            means[:1], [row], xerr=spreads[:1], label=TITLES.get(method, method),
            color=TONES[index % len(TONES)], marker=MARKERS[index % len(MARKERS)],
            linestyle="", markersize=5, capsize=2,
        )  # fmt: skip
        names.append(TITLES.get(method, method))
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel=_label(asked))


def _rows(
    asked: Comparison, found: xr.Dataset, arm: Arm
) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    """(place among all methods, method, means and standard deviations by level) in percent."""
    rows = []
    for index, method in enumerate(found[TRAINED_BY].values):
        if asked.figure not in found:
            continue
        one = 100 * found[asked.figure].sel({"arm": arm.name, TRAINED_BY: method})
        if np.isfinite(one.values).any():
            spread = one.std("seed", ddof=1) if one.sizes["seed"] > 1 else 0 * one.mean("seed")
            rows.append((index, str(method), one.mean("seed").values, spread.values))
    return rows


def _label(asked: Comparison) -> str:
    return f"{named(asked.figure)} / %"
