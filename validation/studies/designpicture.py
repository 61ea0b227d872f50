"""Figures of a design study: the front, what each choice does, what matters most."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from validation.figures import ACCENT, COLOURS, FAINT, INK, Drawing, styled
from validation.studies.findings import Findings
from validation.studies.sensitivity import Sensitivity
from validation.studies.trials import Objective, titled

SCALES = {"J": ((1e-12, "pJ"), (1e-9, "nJ"), (1e-6, "µJ"), (1e-3, "mJ"), (1.0, "J")),
          "s": ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (3600.0, "h")),
          "m2": ((1e-12, "µm²"), (1e-6, "mm²"), (1.0, "m²"))}  # fmt: skip


def scale(unit: str, size: float) -> tuple[float, str]:
    """What to divide a number in an SI unit by, and the name of the unit then."""
    if unit == "1":
        return 1.0, ""
    known = SCALES.get(unit, ((1.0, unit),))
    return next((pair for pair in reversed(known) if abs(size) >= pair[0]), known[0])


def shown(objective: Objective, size: float) -> tuple[float, str]:
    """The same for an objective; accuracies are read in per cent."""
    if objective.name.startswith("accuracy"):
        return 0.01, "%"
    return scale(objective.unit, size)


def drawings(found: Findings) -> list[Drawing]:
    """All figures of the page, apart from the sensitivities."""
    first, costs = found.objectives[0], range(1, len(found.objectives))
    made = [
        Drawing(f"front {found.objectives[c].name}", front(found, c), _caption(found, c))
        for c in costs
    ]
    if not made:
        made = [Drawing("front", front(found, 0), f"All designs by {first.title}.")]
    return made


def _caption(found: Findings, column: int) -> str:
    first, other = found.objectives[0], found.objectives[column]
    return (
        f"{first.title[:1].upper()}{first.title[1:]} over {other.title}. Filled: on the front of "
        f"all {len(found.objectives)} objectives; the line joins those that no design beats in "
        "these two alone. Bars: 95 % over seeds."
    )


@styled
def front(found: Findings, column: int) -> Figure:
    """The first objective over objective `column`, all designs."""
    figure = Figure(figsize=(4.6, 3.3))
    ax = figure.add_subplot()
    x, y = found.means[:, column], found.means[:, 0]
    (dx, ux), (dy, uy) = (
        shown(found.objectives[c], float(np.median(np.abs(found.means[:, c])))) for c in (column, 0)
    )
    ax.plot(x / dx, y / dy, "o", color=INK, alpha=0.22, markersize=3.5, markeredgewidth=0)
    rows = np.flatnonzero(found.front)
    errors = None
    if np.isfinite(found.low).all():
        errors = np.stack([y - found.low[:, 0], found.high[:, 0] - y])[:, rows].clip(min=0) / dy
    ax.errorbar(x[rows] / dx, y[rows] / dy, yerr=errors, fmt="o", color=ACCENT, markersize=4.5,
                elinewidth=0.7, capsize=0)  # fmt: skip
    _joined(ax, found, column, dx, dy)
    if x.min() > 0 and x.max() > 5 * x.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xticks(_ticks(x / dx))
    ax.set(xlabel=_label(found.objectives[column], ux), ylabel=_label(found.objectives[0], uy))
    return figure


def _joined(ax: Axes, found: Findings, column: int, dx: float, dy: float) -> None:
    """A staircase through what nobody beats in the two objectives shown."""
    from validation.studies import pareto

    signs = np.array([found.objectives[c].sign for c in (column, 0)])
    pair = found.means[:, [column, 0]] * signs
    rows = np.flatnonzero(pareto.front(pair))
    rows = rows[np.argsort(found.means[rows, column])]
    ax.step(found.means[rows, column] / dx, found.means[rows, 0] / dy, where="post",
            color=ACCENT, linewidth=0.9, alpha=0.6)  # fmt: skip


def _ticks(values: np.ndarray) -> list[float]:
    """1, 2 and 5 times powers of ten inside the range."""
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    steps = [m * 10.0**p for p in np.arange(low, high + 1) for m in (1, 2, 5)]
    return [tick for tick in steps if values.min() / 1.3 <= tick <= values.max() * 1.3]


def _label(objective: Objective, unit: str) -> str:
    return objective.title + (f" / {unit}" if unit else "")


@styled
def effects(found: Findings, objective: Objective) -> Figure:
    """Means of a figure over all designs with one value, for each axis."""
    axes = found.levels[objective.name]
    figure = Figure(figsize=(2.15 * len(axes), 2.7))
    size = float(np.median(np.abs([v.mean for levels in axes.values() for v in levels])))
    divide, unit = shown(objective, size)
    for index, (ax, (path, levels)) in enumerate(
        zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes.items(), strict=True)
    ):
        places = np.arange(len(levels))
        means = np.array([level.mean for level in levels]) / divide
        errors = np.array([[v.mean - v.low, v.high - v.mean] for v in levels]).T / divide
        ax.errorbar(places, means, yerr=errors.clip(min=0), fmt="o-", markersize=4.5,
                    color=COLOURS[index % len(COLOURS)], capsize=2)  # fmt: skip
        ax.set_xticks(places, [f"{level.value}" for level in levels])
        ax.set(title=titled(path), xlim=(-0.5, len(levels) - 0.5))
        if index == 0:
            ax.set_ylabel(_label(objective, unit))
    return figure


@styled
def sensitivities(found: Findings, objective: Objective, sensitivity: Sensitivity) -> Figure:
    """Bars of the largest effects with their intervals."""
    paths = list(found.study.study.axes)
    ranked = sorted(sensitivity.effects, key=lambda e: -e.value)[:6]
    figure = Figure(figsize=(4.3, 0.75 + 0.3 * len(ranked)))
    ax = figure.add_subplot()
    for place, effect in enumerate(ranked):
        colour = ACCENT if len(effect.axes) == 1 else COLOURS[6]
        ax.barh(place, effect.value, color=colour, alpha=0.75, height=0.62)
        ax.plot([effect.low, effect.high], [place, place], color=INK, linewidth=1)
    names = [
        " \N{MULTIPLICATION SIGN} ".join(titled(paths[i]) for i in effect.axes) for effect in ranked
    ]
    ax.set_yticks(range(len(ranked)), names)
    ax.invert_yaxis()
    ax.axvline(0, color=FAINT, linewidth=0.8)
    ax.grid(visible=False, axis="y")
    shares = sensitivity.kind == "variance"
    ax.set(title=objective.title, xlabel="share of the variance" if shares else "loss of R²")
    return figure
