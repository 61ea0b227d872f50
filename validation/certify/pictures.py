"""Pictures of a certificate: what the frames look like beside their laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import gamma

from validation.certify.suite import Report
from validation.figures import COLOURS, axes
from validation.physics import randommatrix
from validation.physics.pictures import Array, printed

BRIGHTEST = 10.0
"""Intensity, in means, at which the histogram ends."""


def written(folder: Path, name: str, report: Report) -> list[Path]:
    """All pictures as PNG files in `folder`; name: of the backend, for titles."""
    makers = {
        "speckle.png": lambda: speckle(report.frame.numpy(), f"{name}: one frame"),
        "tail.png": lambda: tail(report.relative.numpy(), report.patterns, f"{name}: intensities"),
        "stability.png": lambda: stability(report, f"{name}: speckle against frame 0"),
        "memory.png": lambda: memory(report, f"{name}: input shifted"),
    }
    found = report.spectrum
    if found is not None:
        makers["singular_values.png"] = lambda: singular_values(
            found.values, found.ratio, f"{name}: measured matrix, {found.rows} x {found.columns}"
        )
    return [printed(folder / file, make) for file, make in makers.items()]


def speckle(frame: Array, title: str) -> Figure:
    """One frame (rows, columns), in means, black at 0 and white at 4."""
    figure, ax = axes(4.0, 3.4)
    image = ax.imshow(
        frame / frame.mean(), cmap="gray", vmin=0, vmax=4, interpolation="nearest", aspect="auto"
    )
    ax.grid(visible=False)
    ax.set(title=title, xlabel="pixel", ylabel="pixel")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    figure.colorbar(image, ax=ax, pad=0.02, label="intensity / mean").outline.set_visible(False)
    return figure


def tail(relative: Array, patterns: int, title: str) -> Figure:
    """Histogram of intensities over their mean beside the law, on a logarithmic scale."""
    figure, ax = axes(4.6, 3.1)
    values = relative.ravel()
    bins = np.linspace(0, BRIGHTEST, 51)
    heights = np.histogram(values, bins)[0] / len(values) / (bins[1] - bins[0])
    ax.stairs(heights, bins, fill=True, baseline=1e-6, color=COLOURS[4], label="measured")
    x = np.linspace(0, BRIGHTEST, 200)
    law = gamma.pdf(x, patterns, scale=1 / patterns)
    ax.plot(x, np.maximum(law, 1e-9), color=COLOURS[0], label="law")
    ax.set(title=title, xlabel="intensity / mean of the frame", ylabel="density", yscale="log")
    ax.set_ylim(1e-5, 3)
    _plain_powers(ax.yaxis)
    ax.legend(loc="upper right")
    return figure


def singular_values(values: Array, ratio: float, title: str) -> Figure:
    """Histogram of singular values, ascending, beside Marchenko and Pastur's law."""
    figure, ax = axes(4.6, 3.1)
    low, high = randommatrix.edges(ratio)
    top = max(high, float(values[-1])) * 1.05
    count = min(40, max(8, len(values) // 4))
    bins = np.linspace(min(low, float(values[0])) * 0.95, top, count)
    ax.hist(values, bins.tolist(), density=True, color=COLOURS[4], label="measured")
    s = np.linspace(low, high, 300)
    ax.plot(s, randommatrix.density(s, ratio), color=COLOURS[0], label="Marchenko-Pastur")
    ax.set(title=title, xlabel="singular value", ylabel="density")
    ax.set_ylim(0, ax.get_ylim()[1] * 1.3)
    ax.legend(loc="upper right")
    return figure


def stability(report: Report, title: str) -> Figure:
    """Correlation with frame 0 over device time."""
    figure, ax = axes(4.6, 3.1)
    times, values = np.array([(0.0, 1.0), *report.drift]).T
    ax.plot(times, values, color=COLOURS[0], marker="o", markersize=3.5)
    ax.axhline(0, color=COLOURS[6], linewidth=0.8)
    ax.set(title=title, xlabel="device time / s", ylabel="correlation")
    ax.set_ylim(-0.1, 1.1)
    return figure


def memory(report: Report, title: str) -> Figure:
    """Largest correlation over shifts of the output, for each shift of the input."""
    figure, ax = axes(4.6, 3.1)
    shifts = np.arange(1, len(report.memory) + 1)
    ax.bar(shifts, report.memory, width=0.5, color=COLOURS[0], label="measured")
    (certificate,) = [o for o in report.outcomes if o.name.startswith("memory")]
    bound = getattr(certificate, "high", None)
    if bound is not None:
        ax.axhline(bound, color=COLOURS[1], linewidth=1, label="bound")
    ax.set(title=title, xlabel="shift / macropixels", ylabel="correlation, best output shift")
    ax.set_ylim(0, max(0.2, 1.3 * max(report.memory)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper right")
    return figure


def _plain_powers(axis: object) -> None:
    # The default writes powers of ten as mathematics, which is switched off.
    axis.set_major_formatter(lambda value, _: f"{value:.0e}" if value > 0 else "")  # type: ignore[attr-defined]
