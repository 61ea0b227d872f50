"""Pictures of a crossbar's non-idealities: arrays in, matplotlib figures out.

The makers carry no colours of ink or paper: `printed` draws them for a PNG,
`validation.figures.styled` for a page. Conductances in siemens, times in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from validation.figures import COLOURS, axes
from validation.pngstyle import STYLE

Array = NDArray[np.float64]
MICRO = 1e6
_PRINT: Any = {
    **STYLE,
    "legend.fontsize": "medium",
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.4,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
}


def printed(path: Path, make: Callable[[], Figure]) -> Path:
    """Write what `make` draws as a PNG; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_PRINT):
        make().savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
    return path


def histogram(quiet: Array, restless: Array, sigma_siemens: float, title: str) -> Figure:
    """Repeated reads of a cell without and of one with a trap, beside the normal law.

    quiet, restless: (shots,), siemens. sigma_siemens: of the law, about the mean
    of `quiet`.
    """
    figure, ax = axes(4.6, 3.1)
    mean, sigma = float(quiet.mean()) * MICRO, sigma_siemens * MICRO
    bins = np.linspace(min(quiet.min(), restless.min()), max(quiet.max(), restless.max()), 81)
    bins = bins * MICRO
    counts = np.histogram(quiet * MICRO, bins)[0]
    ax.stairs(counts, bins, fill=True, color=COLOURS[4], label="Gaussian cell")
    stepped = np.histogram(restless * MICRO, bins)[0]
    ax.stairs(stepped, bins, color=COLOURS[1], label="cell with an active trap")
    x = np.linspace(bins[0], bins[-1], 400)
    law = np.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    label = f"law, sigma {sigma:.3f} uS"
    ax.plot(x, law * len(quiet) * (bins[1] - bins[0]), color=COLOURS[0], label=label)
    # Room above the tallest bar, so that the legend covers none.
    ax.set(title=title, xlabel="conductance / uS", ylabel=f"shots of {len(quiet)}")
    ax.set_ylim(0, 1.5 * counts.max())
    ax.legend(loc="upper left")
    return figure


def shots(siemens: Array, levels: list[tuple[float, float]], sigma: float, title: str) -> Figure:
    """Repeated reads of one cell beside its law, a sum of Gaussians.

    siemens: (shots,). levels: (share, siemens) of each. sigma: of every one,
    siemens; 0 draws no law.
    """
    figure, ax = axes(4.3, 3.1)
    bins = np.linspace(siemens.min(), siemens.max(), 61) * MICRO
    counts = np.histogram(siemens * MICRO, bins)[0]
    ax.stairs(counts, bins, fill=True, color=COLOURS[4], label="shots")
    if sigma > 0:
        x = np.linspace(bins[0], bins[-1], 400)
        width = sigma * MICRO
        law = [
            share
            * np.exp(-(((x - at * MICRO) / width) ** 2) / 2)
            / (width * math.sqrt(2 * math.pi))
            for share, at in levels
        ]
        drawn = np.sum(law, 0) * len(siemens) * (bins[1] - bins[0])
        ax.plot(x, drawn, color=COLOURS[0], label=f"law, sigma {width:.3g} uS")
    ax.set(title=title, xlabel="conductance / uS", ylabel=f"shots of {len(siemens)}")
    # Room above the tallest bar, so that the legend covers none.
    ax.set_ylim(0, 1.35 * counts.max())
    ax.legend(loc="upper left", ncols=2)
    return figure


def drift(
    times_s: Array, siemens: Array, mean_siemens: Array, title: str, since: str = "the write"
) -> Figure:
    """Conductance of single cells over the time since their write, or another moment.

    times_s: (times,). siemens: (cells, times). mean_siemens: (times,), the law.
    """
    figure, ax = axes()
    ax.plot(times_s, siemens.T * MICRO, color=COLOURS[4], linewidth=0.7, alpha=0.8)
    ax.plot([], [], color=COLOURS[4], linewidth=0.7, label=f"{len(siemens)} cells")
    ax.plot(times_s, mean_siemens * MICRO, color=COLOURS[0], linewidth=2, label="mean of the law")
    ax.set(title=title, xlabel=f"time since {since} / s", ylabel="conductance / uS", xscale="log")
    # The default writes powers of ten as mathematics, which is switched off.
    ax.xaxis.set_major_formatter(lambda value, _: f"1e{round(math.log10(value))}")
    ax.legend(loc="lower left")
    return figure


def adc_transfer(amperes: Array, codes: Array, ideal_codes: Array, title: str) -> Figure:
    """Codes of one converter over its input, and how far they are from ideal.

    All (points,); ideal_codes: of a converter with the same bits and no error.
    """
    figure = Figure(figsize=(4.3, 3.8))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    micro = amperes * MICRO
    above.plot(micro, ideal_codes, color=COLOURS[6], label="ideal")
    above.plot(micro, codes, color=COLOURS[0], linewidth=0.9, label="measured")
    above.set(title=title, ylabel="code")
    above.legend(loc="upper left")
    below.plot(micro, codes - ideal_codes, color=COLOURS[1], linewidth=0.7)
    below.set(xlabel="column current / uA", ylabel="error / code")
    below.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def ir_drop(ratio: Array, title: str) -> Figure:
    """The part of its conductance that each cell seems to have behind the wires.

    ratio: (rows, columns), effective / actual; 1 means no loss.
    """
    figure, ax = axes(4.3, 3.4)
    shown = ax.imshow(100 * (1 - ratio), cmap="viridis", interpolation="nearest", aspect="auto")
    ax.grid(visible=False)
    ax.set(title=title, xlabel="column (bit line)", ylabel="row (word line), driven from the left")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    bar = figure.colorbar(shown, ax=ax, pad=0.02, label="current lost / %")
    bar.outline.set_visible(False)
    return figure
