"""Figures of a run as matplotlib figures, and as inline SVG that follows the page.

Imports numpy, xarray and matplotlib's object interface (no pyplot, no global
state). Ink, grid and accent are placeholders that `svg` turns into CSS
variables, so one figure serves light and dark pages.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

P = ParamSpec("P")


@dataclass(frozen=True)
class Drawing:
    """One figure of a page and the sentences below it. name: short, unique where it stands."""

    name: str
    figure: Figure
    caption: str


INK, FAINT, ACCENT, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
_CSS = {
    INK: "currentColor",
    FAINT: "var(--line)",
    ACCENT: "var(--accent)",
    PAPER: "var(--paper)",
}
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
"""Paul Tol's "bright" scheme, distinguishable with colour-blind eyes; mid
lightness, so that it reads on white and on near-black."""

MARKERS = ("o", "^", "s", "D", "v")
KERNEL_RANGE = (0.05, 0.9)
"""Mean off-diagonal kernel values outside this mean that the kernel is too
narrow (every sample far from every other) or too wide."""

_TIME = LinearSegmentedColormap.from_list("time", mpl.colormaps["viridis"](np.linspace(0.12, 0.85)))
_STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.4,
    # Class names are the user's: a dollar sign is a dollar sign.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",
}
for _key in ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor"):
    _STYLE[_key] = INK
_STYLE["ytick.labelcolor"] = INK


def styled(make: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a figure maker under this module's style and leave the process as it was."""

    @wraps(make)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return make(*args, **kwargs)

    return wrapper


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as one <svg> element, scalable, for use inside a page.

    name: makes its inner ids unique on the page. description: read aloud.
    """
    stream = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", transparent=True, dpi=200, metadata=metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for placeholder, css in _CSS.items():
        text = text.replace(placeholder, css)
    width, height = figure.get_size_inches() * 72
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}" '
        f'style="max-width: {1.7 * width:.0f}px" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return re.sub(r"<svg\b[^>]*>", lambda _: opening, text, count=1)


def present(*columns: NDArray[Any]) -> list[NDArray[np.float64]]:
    """The columns without the rows in which any is NaN (the padding)."""
    arrays = [np.asarray(column, np.float64) for column in columns]
    keep = np.all([np.isfinite(array) for array in arrays], axis=0)
    return [array[keep] for array in arrays]


def short(text: str, length: int = 18) -> str:
    """`text`, cut with an ellipsis where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + "…"


def axes(width: float = 4.3, height: float = 3.1) -> tuple[Figure, Axes]:
    """A figure (inches) with one pair of axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


@styled
def information_plane(history: xr.Dataset, unit: int, title: str) -> Figure:
    """I(Y;Z) over I(X;Z), both in bit, coloured by iteration.

    Without I(X;Z) in the record, I(Y;Z) over the iteration.
    """
    figure, ax = axes()
    ax.set_title(title)
    ax.set_ylabel("I(Y;Z) / bit")
    row = history.isel(unit=unit)
    t, y, x = present(row["iteration"].values, row["i_yz"].values, row["i_xz"].values)
    if len(t) == 0:
        t, y = present(row["iteration"].values, row["i_yz"].values)
        ax.plot(t, y, color=COLOURS[0], marker="o" if len(t) < 3 else None)
        ax.set_xlabel("iteration")
        return figure
    keep = np.unique(np.linspace(0, len(t) - 1, 300).astype(int))
    ax.plot(x[keep], y[keep], color=FAINT, linewidth=0.8)
    dots = ax.scatter(x[keep], y[keep], c=t[keep], cmap=_TIME, s=12, zorder=3, linewidths=0)
    for label, index in (("start", 0), ("end", -1)):
        offset = (5, -9) if label == "start" else (5, 5)
        ax.annotate(label, (x[index], y[index]), offset, textcoords="offset points", color=INK)
    ax.margins(0.12)
    ax.set_xlabel("I(X;Z) / bit")
    bar = figure.colorbar(dots, ax=ax, pad=0.02, aspect=30, label="iteration")
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(4, integer=True)
    bar.update_ticks()
    return figure


@styled
def kernel(history: xr.Dataset, names: Sequence[str]) -> Figure:
    """Mean off-diagonal kernel value of every unit over its iterations."""
    figure, ax = axes()
    ax.axhspan(*KERNEL_RANGE, color=FAINT, alpha=0.35, linewidth=0)
    for unit, name in enumerate(names):
        row = history.isel(unit=unit)
        t, k = present(row["iteration"].values, row["kernel_mean"].values)
        ax.plot(t, k, label=name, color=COLOURS[unit % len(COLOURS)], marker=_dot(t))
    ax.set(title="Mean kernel value", xlabel="iteration", ylim=(0, 1))
    ax.legend()
    return figure


@styled
def probes(history: xr.Dataset, names: Sequence[str]) -> Figure:
    """Accuracy of a quick linear probe on each unit's feature during training."""
    figure, ax = axes()
    for unit, name in enumerate(names):
        row = history.isel(unit=unit)
        t, accuracy = present(row["probe_iteration"].values, row["probe_accuracy"].values)
        ax.plot(t, 100 * accuracy, label=name, color=COLOURS[unit % len(COLOURS)], marker=_dot(t))
    ax.set(title="Probe accuracy / %", xlabel="iteration")
    ax.legend()
    return figure


@styled
def readouts(history: xr.Dataset) -> Figure:
    """Test accuracy (full) and training accuracy (dashed) of every readout."""
    figure, ax = axes()
    for i, name in enumerate(history["readout"].values):
        row = history.isel(readout=i)
        for kind, dash in (("train", (0, (3, 2))), ("test", "-")):
            (curve,) = present(row[f"readout_{kind}_accuracy"].values)
            label = short(str(name)) if kind == "test" else None
            colour = COLOURS[i % len(COLOURS)]
            epochs = np.arange(1, len(curve) + 1)
            ax.plot(
                epochs, 100 * curve, label=label, linestyle=dash, color=colour, marker=_dot(epochs)
            )
    ax.set(title="Readout accuracy / %", xlabel="epoch of the readout")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")
    return figure


@styled
def weights(history: xr.Dataset, unit: int, title: str) -> Figure:
    """Quantiles of a unit's weights over its iterations, and how far they moved."""
    figure = Figure(figsize=(4.3, 3.9))
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    row = history.isel(unit=unit)
    q = history["quantile"].values
    values = np.asarray(row["weight_quantiles"].values, np.float64)
    keep = np.isfinite(row["weight_iteration"].values) & np.isfinite(values).all(axis=-1)
    t, values = row["weight_iteration"].values[keep], values[keep]
    for i in range(len(q) // 2):
        band = (values[:, i], values[:, len(q) - 1 - i])
        top.fill_between(t, *band, color=ACCENT, alpha=0.13, linewidth=0)
    if len(q) % 2:
        top.plot(t, values[:, len(q) // 2], color=ACCENT, marker=_dot(t))
    top.set(title=title, ylabel="weight")
    steps, change = present(row["weight_iteration"].values, row["weight_change"].values)
    low.plot(steps, change, color=ACCENT, marker=_dot(steps))
    low.set(xlabel="iteration", ylabel="change")
    low.set_ylim(bottom=0)
    return figure


@styled
def confusion(counts: NDArray[Any], classes: Sequence[str]) -> Figure:
    """Counts by true (rows) and predicted class, shaded by the share of the row."""
    n = len(classes)
    side = min(8.5, max(3.4, 1.5 + 0.42 * n))
    figure, ax = axes(side, side * 0.92)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i, j in np.ndindex(n, n):
        colour = ACCENT if i == j else COLOURS[1]
        # The root keeps a confusion of one per cent visible.
        alpha = 0.75 * float(np.sqrt(share[i, j]))
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=colour, alpha=alpha, linewidth=0))
        if counts[i, j]:
            size = 8.5 if n <= 12 else 6.5
            ax.text(j, i, f"{int(counts[i, j])}", ha="center", va="center", fontsize=size)
    names = [short(name) for name in classes]
    # A letter is about 0.085 inch wide.
    rotation = 0 if 0.085 * max(map(len, names)) < (side - 1.2) / n else 45
    ax.set_xticks(range(n), names, rotation=rotation, ha="right" if rotation else "center")
    ax.set_yticks(range(n), names)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="predicted", ylabel="true")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    return figure


@styled
def comparison(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracies in % with one standard error, the first row set apart."""
    figure, ax = axes(6.4, 0.75 + 0.27 * len(rows))
    for i, row in enumerate(rows):
        colour = ACCENT if i == 0 else INK
        error = 100 * (row["standard_error"] or 0.0)
        value = 100 * row["accuracy"]
        ax.errorbar(value, i, xerr=error, fmt="o", color=colour, markersize=5, capsize=3)
        ax.annotate(
            f"{value:.1f}", (value, i), (0, 5), textcoords="offset points", ha="center",
            fontsize=7.5, color=colour,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [short(row["name"], 46) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.8)
    ax.set_xlabel("test accuracy / %")
    ax.grid(visible=False, axis="x")
    ax.tick_params(axis="y", length=0)
    return figure


def _dot(t: NDArray[Any]) -> str | None:
    """A marker where a line of fewer than three points would not be seen."""
    return "o" if len(t) < 3 else None
