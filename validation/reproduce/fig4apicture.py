"""The picture of unsupervised learning: probes against iterations, and all runs beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from validation.figures import COLOURS

LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "marker": "o", "linestyle": "-"},
    {"color": COLOURS[1], "marker": "s", "linestyle": "--"},
    {"color": COLOURS[2], "marker": "^", "linestyle": ":"},
)
TITLES = {"linear": "Linear probe", "knn": "k-NN probe (k = 5, cosine)"}
NAMES = {
    "main": "PIB, views of instances",
    "harsh": "the same, harsh chip",
    "control": "control: H(Z) up",
    "untrained": "untrained",
}


def picture(data: xr.Dataset, quick: bool) -> Figure:
    """Left and middle: both probes against iterations of a unit, a line per seed.
    Right: every run at its end, on all test images."""
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.0, 1.0, 1.15])
    for ax, name in ((left, "linear"), (middle, "knn")):
        _curves(ax, data, name)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False,
                  fontsize=8)  # fmt: skip
    _ends(right, data)
    short = " (quick: few images and iterations)" if quick else ""
    figure.suptitle(f"Unsupervised PIB on memristor units, MNIST{short}", x=0.01, ha="left",
                    fontsize=11)  # fmt: skip
    return figure


def _curves(ax: Axes, data: xr.Dataset, name: str) -> None:
    for index, unit in enumerate(data["unit"].values):
        for nth, seed in enumerate(data["seed"].values):
            one = data.sel(seed=seed, unit=unit)
            keep = np.isfinite(one["curve_iteration"].values)
            ax.plot(
                one["curve_iteration"].values[keep], 100 * one[f"curve_{name}"].values[keep],
                linewidth=1.2, markersize=3.5, label=str(unit) if nth == 0 else None,
                **LOOKS[index % len(LOOKS)],
            )  # fmt: skip
    levels = {"raw pixels": float(data[f"plain_{name}"].sel(what="pixels"))}
    for unit, title in zip(data["unit"].values, ("random unit", "random chain"), strict=False):
        levels[title] = float(data[name].sel(run="untrained", unit=unit).mean())
    for (title, level), line in zip(levels.items(), ("-", (0, (6, 2)), (0, (1, 1))), strict=True):
        ax.axhline(100 * level, color="0.45", linewidth=0.9, linestyle=line, label=title)
    ax.set(xlabel="iteration of the unit (log. scale)", ylabel="test accuracy / %", xscale="log")
    ax.set_title(TITLES[name], fontsize=9.5, loc="left")
    ax.grid(color="0.9", linewidth=0.5)


def _ends(ax: Axes, data: xr.Dataset) -> None:
    """A row per run: both units, linear probe; smallest and largest seed as a bar."""
    rows: list[tuple[str, list[np.ndarray]]] = []
    for run in ("main", "harsh", "control", "untrained"):
        each = data["linear"].sel(run=run)
        rows.append((NAMES[run], [each.sel(unit=u).values for u in data["unit"].values]))
    for target in data["target"].values if "target" in data else ():
        each = data["target_linear"].sel(target=target)
        rows.append((f"target: {target} (1 seed)", [np.atleast_1d(v) for v in each.values]))
    for what in data["what"].values:
        one = np.atleast_1d(data["plain_linear"].sel(what=what).values)
        rows.append((str(what), [one]))
    for row, (_, units) in enumerate(rows):
        for index, values in enumerate(units):
            look: dict[str, Any] = (
                dict(LOOKS[index % len(LOOKS)]) if len(units) > 1 else {"color": "0.3"}
            )
            look |= {"linestyle": "none", "marker": look.get("marker", "D")}
            middle = values.mean()
            spread = [[100 * (middle - values.min())], [100 * (values.max() - middle)]]
            ax.errorbar(100 * middle, row, xerr=spread, markersize=5, capsize=2, **look)
    ax.set_yticks(range(len(rows)), [title for title, _ in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("linear probe at the end, test accuracy / %")
    ax.set_title("Unit 1 (●), unit 2 (■), no unit (◆)", fontsize=9.5, loc="left")
    ax.grid(color="0.9", linewidth=0.5)
