"""How the scores of runs are drawn; readable in grey."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes

from validation.figures import COLOURS
from validation.rl.outcome import WINDOW

DASHES = ("-", "--", ":")


def training_curve(
    axes: Axes, runs: Sequence[xr.Dataset], title: str, good: float | None, colour: str = COLOURS[0]
) -> None:
    """Scores of each run's episodes as dots, their running mean as lines."""
    for number, data in enumerate(runs):
        seed = data.attrs["seed"]
        axes.plot(data["episode"], data["score"], ".", ms=2, color="#aaaaaa", zorder=1)
        axes.plot(
            data["episode"], data["running_mean"], color=colour, lw=1.6, zorder=3,
            ls=DASHES[number % len(DASHES)], label=f"mean of {WINDOW}, seed {seed}",
        )  # fmt: skip
    if good is not None:
        axes.axhline(good, color="#444444", lw=0.8, ls=(0, (5, 3)), zorder=2)
        axes.annotate(
            f"solved at {good:g}", (0.02, good), xycoords=("axes fraction", "data"),
            xytext=(0, -3), textcoords="offset points", va="top", fontsize=7, color="#444444",
        )  # fmt: skip
    axes.set(title=title, xlabel="episode", ylabel="score of an episode")
    axes.legend(loc="lower right")
