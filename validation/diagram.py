"""The network as a drawing: drive, units, features, readout, and what skips.

Imports matplotlib only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from validation.figures import ACCENT, FAINT, INK, short, styled

STEP, WIDE, HIGH = 2.3, 1.62, 1.66


@styled
def network(units: Sequence[Mapping[str, Any]], readout: Mapping[str, Any], image: str) -> Figure:
    """Boxes from left to right; arcs above: raw drive to later units; below: to the readout.

    units: name, backend, kind, inputs, outputs, drive, reading_width, in order.
    image: what the first box says under "drive", e.g. "28 x 28".
    """
    last = len(units) + 1
    skips = [i + 1 for i, u in enumerate(units) if i and "image" in str(u.get("drive", ""))]
    joins = list(range(1, last - 1)) if readout["inputs"] > units[-1]["outputs"] else []
    low, high = (-1.95 if joins else -1.0), (2.05 if skips else 1.0)
    figure = Figure(figsize=(1.25 * (last + 1) + 0.3, 0.573 * (high - low)))
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_axis_off()
    _box(ax, 0, "drive", [image], FAINT)
    for i, unit in enumerate(units):
        _box(ax, i + 1, str(unit["name"]), _lines(unit), ACCENT)
        _arrow(ax, i, i + 1, f"{unit['inputs']}", 0.0)
    for column in skips:
        _arrow(ax, 0, column, "skip", -0.28)
    _box(ax, last, "readout", ["linear", f"{readout['classes']} classes"], FAINT)
    _arrow(ax, last - 1, last, f"{units[-1]['outputs']}", 0.0)
    for column in joins:
        _arrow(ax, column, last, "", 0.28)
    ax.set(xlim=(-1.0, STEP * last + 1.0), ylim=(low, high))
    return figure


def _lines(unit: Mapping[str, Any]) -> list[str]:
    lines = [short(str(unit["backend"]), 16)]
    if unit["kind"] == "isomorphic":
        lines.append(f"{unit['inputs']} → {unit['outputs']}")
    else:
        lines += [f"reads {unit['reading_width']}", f"digital → {unit['outputs']}"]
    return lines


def _box(ax: Axes, column: int, title: str, lines: Sequence[str], edge: str) -> None:
    x = column * STEP
    box = FancyBboxPatch(
        (x - WIDE / 2, -HIGH / 2), WIDE, HIGH, boxstyle="round,pad=0,rounding_size=0.14",
        facecolor=edge, edgecolor=edge, linewidth=1.3,
    )  # fmt: skip
    box.set_facecolor((*box.get_facecolor()[:3], 0.1))
    ax.add_patch(box)
    top = 0.17 * len(lines)
    ax.text(x, top, title, ha="center", va="center", fontsize=9.5, fontweight="bold", color=INK)
    for i, line in enumerate(lines):
        y = top - 0.36 * (i + 1)
        ax.text(x, y, line, ha="center", va="center", fontsize=8, color=INK)


def _arrow(ax: Axes, start: int, end: int, label: str, bend: float) -> None:
    """Straight between neighbours; bend < 0 arches above the boxes, > 0 below."""
    side = 0.0 if bend == 0 else (HIGH / 2 if bend < 0 else -HIGH / 2)
    reach = WIDE / 2 if bend == 0 else 0.0
    a, b = (start * STEP + reach + 0.04, side), (end * STEP - reach - 0.04, side)
    # The further it reaches, the flatter, so that arcs stay in the picture.
    curve = bend / max(1, (end - start) / 2)
    arrow = FancyArrowPatch(
        a, b, arrowstyle="-|>", mutation_scale=9, color=INK, linewidth=1.0,
        connectionstyle=f"arc3,rad={curve}", shrinkA=0, shrinkB=0,
    )  # fmt: skip
    ax.add_patch(arrow)
    x, length = (a[0] + b[0]) / 2, b[0] - a[0]
    y = 0.14 if bend == 0 else side + (0.5 * abs(curve) * length + 0.13) * (1 if bend < 0 else -1)
    ax.text(x, y, label, ha="center", va="center", fontsize=7.5, color=INK)
