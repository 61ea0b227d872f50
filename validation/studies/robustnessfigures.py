"""Figures of a robustness report: tornado, curves, all together, interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from validation.figures import ACCENT, COLOURS, FAINT, INK, MARKERS, PAPER, axes, short, styled
from validation.studies.collect import TRAINED_BY
from validation.studies.losses import Curve, Loss
from validation.studies.robustnessdata import curve_of, severe_loss
from validation.studies.robustnessplan import LOOP, TEST, TOGETHER

TITLES: Mapping[str, str] = {
    "pib": "PIB",
    "lce": "local cross-entropy",
    "backprop": "backpropagation, deployed",
    "backprop-retrained": "the same, readout retrained",
    "readout": "untrained, readout only",
}
WHENS: Mapping[str, str] = {TEST: "comes after training", LOOP: "in the loop from the start"}
TITLE_LENGTH = 30


@dataclass(frozen=True)
class Bar:
    """One row of the tornado. gain: accuracy won by making it perfect; fractions."""

    title: str
    severe: str
    loss: Loss
    gain: float


@styled
def tornado(bars: Sequence[Bar], found: xr.Dataset, names: Sequence[str]) -> Figure:
    """Bars: accuracy the first method loses at severity 1; marks: the other curves.

    names: cases of the bars. To the left of zero: what perfection would win.
    """
    methods = [str(m) for m in found[TRAINED_BY].values]
    figure, ax = axes(7.4, 0.9 + 0.27 * len(bars))
    for i, (bar, name) in enumerate(zip(bars, names, strict=True)):
        ax.barh(i, 100 * bar.loss.value, 0.62, color=ACCENT, alpha=0.55, linewidth=0)
        ax.barh(i, -100 * bar.gain, 0.62, color=COLOURS[2], alpha=0.55, linewidth=0)
        error = 100 * bar.loss.error
        ax.errorbar(100 * bar.loss.value, i, xerr=error, color=INK, capsize=2, linewidth=0.9)
        for method, when in _others(methods):
            lost = severe_loss(found, name, method, when)
            if lost is not None:
                ax.plot(100 * lost.value, i, linestyle="", **_mark(methods, method, when))
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(bars)), [f"{short(b.title, TITLE_LENGTH)}  {b.severe}" for b in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xlabel("accuracy lost at severity 1 / points (left: won by perfection)")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    return figure


def _others(methods: Sequence[str]) -> list[tuple[str, str]]:
    """All curves but the one that the bars show."""
    both = [(method, when) for method in methods for when in (TEST, LOOP)]
    return [pair for pair in both if pair != (methods[0], TEST)]


def _mark(methods: Sequence[str], method: str, when: str) -> dict[str, Any]:
    colour = _colour(methods, method)
    return {
        "marker": MARKERS[methods.index(method) % len(MARKERS)],
        "markersize": 4.6,
        "color": colour,
        "markerfacecolor": colour if when == LOOP else PAPER,
        "markeredgewidth": 1.1,
    }


def _colour(methods: Sequence[str], method: str) -> str:
    return COLOURS[methods.index(method) % len(COLOURS)]


@styled
def curve(
    found: xr.Dataset, case: str, title: str, ticks: Sequence[str], limits: tuple[float, float]
) -> Figure:
    """Accuracy over severity: mean over seeds, band from the worst seed to the best.

    ticks: values at severities 0, 0.5 and 1. limits: of the accuracy, shared.
    """
    figure, ax = axes(3.1, 2.1)
    _curves(ax, found, case)
    at = float(found["delivered_severity"].sel(case=case))
    if np.isfinite(at) and at > 0:
        ax.axvline(at, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    ax.set_title(short(title, TITLE_LENGTH))
    ax.set_xticks([0, 0.5, 1], ticks)
    sides: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "right")
    for label, side in zip(ax.get_xticklabels(), sides, strict=True):
        label.set_horizontalalignment(side)
    ax.set(xlim=(-0.03, 1.03), ylim=limits)
    return figure


def _curves(ax: Axes, found: xr.Dataset, case: str) -> None:
    methods = [str(m) for m in found[TRAINED_BY].values]
    for method in methods:
        for when in (TEST, LOOP):
            curve = curve_of(found, case, method, when)
            if curve is not None:
                _line(ax, curve, _colour(methods, method), when)


def _line(ax: Axes, curve: Curve, colour: str, when: str) -> None:
    dash: Any = "-" if when == LOOP else (0, (3, 1.5))
    s, a = curve.severities, 100 * curve.accuracy
    ax.fill_between(s, a.min(axis=1), a.max(axis=1), color=colour, alpha=0.16, linewidth=0)
    ax.plot(s, a.mean(axis=1), color=colour, linestyle=dash, marker="o", markersize=2.2)


@styled
def legend(methods: Sequence[str]) -> Figure:
    """What colours, dashes and marks mean."""
    figure = Figure(figsize=(7.4, 0.52))
    handles = [
        Line2D([], [], color=_colour(methods, m), marker=MARKERS[i % len(MARKERS)], markersize=4.6)
        for i, m in enumerate(methods)
    ]
    names = [TITLES.get(m, m) for m in methods]
    dashes: tuple[tuple[str, Any], ...] = ((TEST, (0, (3, 1.5))), (LOOP, "-"))
    for when, dash in dashes:
        fill = PAPER if when == TEST else INK
        handles.append(
            Line2D([], [], color=INK, linestyle=dash, marker="o", markersize=4.6, mfc=fill)
        )
        names.append(WHENS[when])
    figure.legend(handles, names, loc="center left", ncols=3, handlelength=2.6, borderpad=0)
    return figure


@styled
def all_together(found: xr.Dataset, summed: Mapping[str, Sequence[float]]) -> Figure:
    """Everything at one severity, and what the single losses of the first method add
    up to (dotted). summed: "severity" and "accuracy", fractions."""
    figure, ax = axes(5.2, 3.2)
    _curves(ax, found, TOGETHER)
    accuracy = 100 * np.asarray(summed["accuracy"])
    ax.plot(summed["severity"], accuracy, color=INK, linestyle=(0, (1, 1.5)), linewidth=1.2)
    ax.set(xlabel="severity of everything", ylabel="accuracy / %", xlim=(-0.02, 1.02))
    ax.set_ylim(bottom=0, top=101)
    return figure


@styled
def interactions(rows: Sequence[Mapping[str, object]]) -> Figure:
    """Loss together minus the sum of the single losses, points, with one s.e."""
    figure, ax = axes(6.4, 0.85 + 0.3 * len(rows))
    for i, row in enumerate(rows):
        lost = row["excess"]
        assert isinstance(lost, Loss)
        colour = COLOURS[1] if lost.value > 0 else COLOURS[0]
        ax.errorbar(
            100 * lost.value, i, xerr=100 * lost.error, fmt="o", color=colour, markersize=5,
            capsize=3,
        )  # fmt: skip
    ax.axvline(0, color=FAINT, linewidth=1)
    ax.set_yticks(range(len(rows)), [short(str(row["title"]), 58) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("loss together minus sum of losses / points")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    return figure
