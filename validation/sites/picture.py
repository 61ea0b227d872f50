"""How two sites learned: their losses on one clock, and how old the features were."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray

from validation.sites.order import ROLES
from validation.sites.timeline import away

COLOURS = {"upstream": "#4477aa", "downstream": "#ee6677"}
STYLES = {"upstream": "-", "downstream": "--"}
NAMES = {"upstream": "upstream site (unit 1)", "downstream": "downstream site (unit 2)"}
GREY = "#777777"


def smooth(values: NDArray[np.float64], parts: int = 40) -> NDArray[np.float64]:
    """Running mean over one part in `parts`; batch losses scatter."""
    width = max(1, len(values) // parts)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def losses(axes: Axes, data: xr.Dataset) -> None:
    """Both loss curves against time, with publications as ticks below."""
    low = np.inf
    for role in ROLES:
        loss, times = smooth(data[f"{role}_loss"].to_numpy()), data[f"{role}_time"].to_numpy()
        line, time = loss.copy(), times.copy()
        for begin, _ in away(data, role):
            # No line across the time when nobody was there.
            at = int(np.searchsorted(time, begin))
            line, time = np.insert(line, at, np.nan), np.insert(time, at, begin)
        axes.plot(time, line, color=COLOURS[role], ls=STYLES[role], label=NAMES[role])
        low = min(low, float(loss.min()))
    out = data["published_time"].to_numpy()
    axes.plot(out, np.full(len(out), low - 0.06), "|", ms=7, color=GREY, label="features published")
    axes.set(xlabel="time since the first step (s)", ylabel="local loss (bit)")
    mark_kills(axes, data)
    axes.legend(fontsize=7, loc="upper right")


def mark_kills(axes: Axes, data: xr.Dataset) -> None:
    """A grey band while a killed site is away."""
    for role in ROLES:
        for begin, end in away(data, role):
            axes.axvspan(begin, end, color=GREY, alpha=0.25, lw=0)
            axes.annotate(
                f"{role}\nkilled", ((begin + end) / 2, 0.55), fontsize=7, ha="center",
                xycoords=("data", "axes fraction"),
            )  # fmt: skip


def staleness(axes: Axes, data: xr.Dataset) -> None:
    """Histogram of the age of the features in use, over the downstream site's steps."""
    age = data["staleness_steps"].to_numpy()
    known = age[~np.isnan(age)]
    top = max(1.0, float(known.max()) if len(known) else 1.0)
    axes.hist(known, bins=np.linspace(0, top, 25).tolist(), color=COLOURS["downstream"], alpha=0.8)
    axes.set(xlabel="age of features in use (upstream steps)", ylabel="downstream steps")
    waited = int(np.isnan(age).sum())
    mean = float(known.mean()) if len(known) else float("nan")
    told = f"mean {mean:.0f}, most {top:.0f}\n{waited} steps before\nthe first publication"
    axes.text(0.97, 0.95, told, transform=axes.transAxes, ha="right", va="top", fontsize=7.5)


def drawn(data: xr.Dataset) -> Picture:
    """Losses and staleness of one run."""
    picture = Picture(figsize=(9.0, 3.2), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    losses(left, data)
    staleness(right, data)
    return picture
