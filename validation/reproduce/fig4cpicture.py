"""The picture of `fig4c`: loss curves of two sites, their joint accuracy, their mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from validation.sites.order import ROLES
from validation.sites.picture import COLOURS, GREY, losses, smooth, staleness

TITLES = {
    "sequential": "one after the other",
    "free": "two sites",
    "downstream": "downstream killed",
    "upstream": "upstream killed",
}


def drawn(
    found: Mapping[str, xr.Dataset], accuracy: Mapping[str, Sequence[float]], test_images: int,
    title: str,
) -> Picture:  # fmt: skip
    """Losses of the undisturbed and of the killed run of the first seed, accuracies of all.

    found: by arm, the first seed's run. accuracy: by arm, over seeds.
    """
    picture = Picture(figsize=(10.0, 6.2), layout="constrained")
    picture.suptitle(title, fontsize=10)
    (a, b), (c, d) = picture.subplots(2, 2, width_ratios=(3, 2))
    losses(a, found["free"])
    _sequence(a, found["sequential"])
    a.legend(fontsize=7, loc="upper right")
    a.set_title("a  two sites, neither waits", loc="left", fontsize=9)
    bars(b, accuracy, test_images)
    b.set_title("b  the network made of both", loc="left", fontsize=9)
    killed = "downstream" if "downstream" in found else "upstream"
    losses(c, found[killed])
    c.get_legend().remove()
    c.set_title(f"c  the {killed} site killed and back", loc="left", fontsize=9)
    # The same axes, so that the two rows can be compared by eye.
    c.set_ylim(a.get_ylim())
    staleness(d, found["free"])
    d.set_title("d  age of what is learnt from", loc="left", fontsize=9)
    return picture


def _sequence(axes: Axes, data: xr.Dataset) -> None:
    """Training one after the other, thin and grey, on the same clock."""
    for index, role in enumerate(ROLES):
        axes.plot(
            data[f"{role}_time"], smooth(data[f"{role}_loss"].to_numpy()), color=GREY, lw=0.8,
            ls=("-", "--")[index], label="one after the other" if index == 0 else None,
        )  # fmt: skip


def bars(axes: Axes, accuracy: Mapping[str, Sequence[float]], test_images: int) -> None:
    """Mean test accuracy per arm, every seed as a dot."""
    arms = [arm for arm in TITLES if arm in accuracy]
    points = [100 * np.asarray(accuracy[arm]) for arm in arms]
    # Marks, not columns: the axis does not begin at zero.
    for x, values in enumerate(points):
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot([x - 0.3, x + 0.3], 2 * [values.mean()], color=COLOURS["upstream"], lw=2.5)
        axes.plot(x + spread, values, "o", ms=5, mec="white", color=COLOURS["downstream"])
        axes.annotate(
            f"{values.mean():.2f}", (x, max(values)), ha="center", fontsize=8,
            xytext=(0, 7), textcoords="offset points",
        )  # fmt: skip
    low, high = min(v.min() for v in points), max(v.max() for v in points)
    room = max(0.5, high - low)
    axes.set_xlim(-0.6, len(arms) - 0.4)
    axes.set_ylim(min(low, points[0].mean() - 1) - 0.6 * room, high + 0.8 * room)
    axes.axhline(points[0].mean() - 1.0, color=GREY, lw=0.8, ls=":")
    axes.annotate(
        "one point below the first", (len(arms) - 0.45, points[0].mean() - 1.0), fontsize=7,
        color=GREY, ha="right", va="bottom",
    )  # fmt: skip
    axes.set_xticks(range(len(arms)), [TITLES[arm].replace(" ", "\n", 1) for arm in arms])
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_ylabel(f"accuracy (%), {test_images:,} test images")
