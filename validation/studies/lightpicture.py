"""The picture of the study of light: accuracy against predicted speckle correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from validation.figures import COLOURS, MARKERS


@dataclass(frozen=True)
class Spot:
    """One point: means over seeds, with their standard errors."""

    medium: str
    electrons: float
    predicted: float
    measured: float
    measured_error: float
    accuracy: float
    accuracy_error: float
    linear: float


def picture(spots: Sequence[Spot], chance: float) -> Figure:
    """Left: accuracy of PIB (full) and of a linear readout on raw frames (hollow)
    over the predicted correlation. Right: the correlation measured, over it.

    Marker: medium; colour: electrons. chance: accuracy of a guess.
    """
    media = list(dict.fromkeys(s.medium for s in spots))
    lights = sorted({s.electrons for s in spots})
    figure = Figure(figsize=(9.2, 4.0))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.axhline(chance, color=COLOURS[-1], linestyle=":", linewidth=1)
    right.plot([0, 1], [0, 1], color=COLOURS[-1], linewidth=1)
    for spot in spots:
        look: dict[str, Any] = {
            "marker": MARKERS[media.index(spot.medium)],
            "color": COLOURS[lights.index(spot.electrons)],
            "linestyle": "none",
        }
        x = spot.predicted
        left.plot(x, spot.linear, markerfacecolor="none", markersize=6, alpha=0.8, **look)
        left.errorbar(x, spot.accuracy, spot.accuracy_error, markersize=6, **look)
        right.errorbar(x, spot.measured, spot.measured_error, markersize=6, **look)
    left.set(title="Full: PIB; hollow: linear readout on raw frames", ylabel="test accuracy")
    left.set(ylim=(0, 1))
    right.set(title="The budget and the frames", ylabel="measured correlation")
    for ax in (left, right):
        ax.set(xlabel="predicted correlation, training to test", xlim=(-0.05, 1.05))
    _legend(left, media, lights)
    return figure


def _legend(ax: Axes, media: Sequence[str], lights: Sequence[float]) -> None:
    shapes = [
        Line2D([], [], linestyle="none", color="#666666", marker=marker, label=name)
        for name, marker in zip(media, MARKERS, strict=False)
    ]
    colours = [
        Line2D([], [], linestyle="none", color=colour, marker="o", label=f"{count:g} electrons")
        for count, colour in zip(lights, COLOURS, strict=False)
    ]
    ax.legend(handles=[*shapes, *colours], loc="upper left", ncols=2)
