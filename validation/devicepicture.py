"""Goodness of fit of a user's device, as one figure of four panels."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray
from scipy import stats

from substrates.memristor.fit.fitfile import technology
from substrates.memristor.fit.fitting import Fit
from substrates.memristor.fit.heldout import Outcome, between_cells, own_levels, standardised_reads
from substrates.memristor.fit.measurements import Measurements
from substrates.memristor.fit.trajectories import Cells
from validation.figures import COLOURS
from validation.pngstyle import STYLE

DRAWN_CELLS = 50
DATA, LAW, RARE = COLOURS[0], COLOURS[1], "#666666"
_STYLE: Any = {**STYLE, "lines.linewidth": 1.4}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes for the same figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def picture(outcome: Outcome, found: Measurements) -> Figure:
    """Programming, drift of cells, spread over time, read noise: data and law."""
    fit = outcome.fit
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 7.0), layout="constrained")
        first, second, third, fourth = figure.subplots(2, 2).flat
        programming(first, fit)
        drift(second, fit, found)
        noise(third, fit, found)
        quantiles(fourth, fit, found)
    return figure


def programming(ax: Axes, fit: Fit) -> None:
    """Write error against target: spread as read first, and the file's curve."""
    curve, target = fit.curves["sigma"], fit.levels * 1e6
    made = technology(fit, "fit", "fit")
    grid = torch.linspace(float(fit.levels[0]), float(fit.levels[-1]), 200, dtype=torch.float64)
    start = float(fit.natural["start"][0]) if "start" in fit.natural else 0.0
    ax.errorbar(
        target, curve.raw, 1.96 * curve.raw_errors, fmt="o", color=DATA, ms=4, capsize=2,
        label="each target alone, 95 %",
    )  # fmt: skip
    ax.plot(grid * 1e6, made.sigma(grid) * 1e6, color=LAW, label="write error in the file")
    if start > 0:
        whole = np.hypot(made.sigma(grid).numpy() * 1e6, start)
        ax.plot(grid * 1e6, whole, "--", color=LAW, label="with spread at first time")
    ax.set(title="Programming", xlabel="target / µS", ylabel="sigma / µS")
    ax.set_ylim(bottom=0)
    ax.legend()


def drift(ax: Axes, fit: Fit, found: Measurements) -> None:
    """Some cells of the middle target, with the law's quantiles."""
    level = fit.levels[len(fit.levels) // 2]
    mine = found.of_cells(np.flatnonzero(found.target == level))
    for row in range(min(DRAWN_CELLS, len(mine.target))):
        t, g = _visit_means(mine, row)
        ax.plot(t, g * 1e6, "-", color=DATA, lw=0.6, alpha=0.55)
    t = np.geomspace(fit.first_s, fit.last_s, 80)
    mean, sigma = _band(fit, level, t)
    ax.plot(t, mean, color=LAW, label="law: median")
    for z, style in ((1.645, "--"), (2.576, ":")):
        share = f"{200 * stats.norm.cdf(z) - 100:.0f} %"
        ax.plot(t, mean - z * sigma, style, color=LAW, lw=1.0, label=f"law: {share} of cells")
        ax.plot(t, mean + z * sigma, style, color=LAW, lw=1.0)
    count = min(DRAWN_CELLS, len(mine.target))
    ax.set(
        xscale="log", xlabel="time since the write / s", ylabel="conductance / µS",
        title=f"{fit.kind} law, {count} cells written to {level * 1e6:.4g} µS",
    )  # fmt: skip
    ax.legend()


def noise(ax: Axes, fit: Fit, found: Measurements) -> None:
    """Read noise of single cells: how their levels spread."""
    cells = fit.cells_of(found)
    levels = own_levels(fit.shape(cells), cells) * 100
    level = fit.estimate("read_noise.level").value * 100
    spread = fit.estimate("read_noise.spread_ln").value
    edges = np.geomspace(max(levels.min(), level / 30), levels.max() * 1.001, 25)
    width = float(np.log(edges[1] / edges[0]))
    share = np.histogram(levels, edges)[0] / len(levels) / width
    ax.stairs(share, edges, fill=True, color=DATA, alpha=0.7, label="cells, as measured")
    x = np.geomspace(edges[0], edges[-1], 300)
    density = x * _level_density(x, level, spread, cells.taken.sum(1).numpy() - 2)
    ax.plot(x, density, color=LAW, label="law, with the scatter of few reads")
    ax.set(
        xscale="log", xlabel="read noise of a cell / % of its conductance",
        ylabel="share of cells per unit of ln",
        title=f"Read noise: {level:.2g} % r.m.s., ln spread {spread:.2f}",
    )  # fmt: skip
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(top=1.3 * max(share.max(), density.max()))
    ax.legend()


def quantiles(ax: Axes, fit: Fit, found: Measurements) -> None:
    """Normal quantiles of single reads and of the cells' first readings."""
    cells = fit.cells_of(found)
    shape = fit.shape(cells)
    reads = standardised_reads(shape, cells)
    sigma = (between_cells(shape) + (shape.level * cells.scale).square()).sqrt()
    first = ((cells.g - shape.mean) / sigma)[:, 0].numpy()
    for values, colour, label in (
        (reads, COLOURS[6], "reads about their cell's trajectory"),
        (first, DATA, "cells' first readings about the law"),
    ):
        ordered = np.sort(values)
        normal = stats.norm.ppf((np.arange(len(ordered)) + 0.5) / len(ordered))
        keep = np.unique(np.linspace(0, len(ordered) - 1, 400).astype(int))
        # All of the tails, which is what the plot is for.
        keep = np.union1d(keep, np.r_[:50, max(len(ordered) - 50, 0) : len(ordered)])
        keep = keep[keep < len(ordered)]
        ax.plot(normal[keep], ordered[keep], ".", color=colour, ms=4, label=label)
    reach = ax.get_xlim()
    ax.plot(reach, reach, color=LAW, lw=1.0, label="normal")
    ax.set_xlim(reach)
    ax.set(title="Tails", xlabel="quantile of N(0, 1)", ylabel="standardised residual")
    ax.legend()


def _visit_means(found: Measurements, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    visit, taken = found.visits[row], found.taken[row]
    numbers = np.unique(visit[taken])
    pick = [taken & (visit == n) for n in numbers]
    t = np.array([np.exp(np.log(found.time_s[row, p]).mean()) for p in pick])
    return t, np.array([found.conductance[row, p].mean() for p in pick])


def _band(
    fit: Fit, level: float, t: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and spread over cells of the law at times t, uS."""
    one = Measurements(
        names=np.array(["law"]), target=np.array([level]), time_s=t[None],
        conductance=_typical(fit, level, t)[None], taken=np.ones((1, len(t)), bool),
    )  # fmt: skip
    shape = fit.shape(Cells.of(one, fit.levels, fit.first_s))
    return shape.mean[0].numpy(), between_cells(shape)[0].sqrt().numpy()


def _typical(fit: Fit, level: float, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The law's mean trajectory, about which a power law is expanded, siemens."""
    if fit.kind != "power":
        return np.full(len(t), level)
    place = int(np.searchsorted(fit.levels, level))
    exponent = float(fit.natural["exponent"][place])
    return np.asarray(level * (t / fit.first_s) ** -exponent)


def _level_density(
    x: NDArray[np.float64], level: float, spread: float, dof: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Density of a cell's sample level at x: log-normal times root of chi-square over dof."""
    node, weight = np.polynomial.hermite_e.hermegauss(64)
    total = np.zeros_like(x)
    for count, share in zip(*np.unique(dof, return_counts=True), strict=True):
        for z, w in zip(node, weight / weight.sum(), strict=True):
            scale = level * np.exp(spread * z - spread**2) / np.sqrt(count)
            total += share / len(dof) * w * stats.chi.pdf(x / scale, count) / scale
    return total
