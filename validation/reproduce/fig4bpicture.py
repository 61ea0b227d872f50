"""fig4b as a picture: scores and running averages of three arms, pairs in dim light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from validation.figures import COLOURS
from validation.pngstyle import style
from validation.reproduce.fig4bfigures import GOOD, Pairs
from validation.rl.arms import ARMS
from validation.rl.picture import training_curve

OF_ARM = {"pib": COLOURS[0], "td": COLOURS[1], "dqn": COLOURS[2]}
LINE_OF_ARM = {"pib": "-", "td": "--", "dqn": ":"}


def picture(bright: Mapping[str, Sequence[xr.Dataset]], pairs: Pairs, quick: bool) -> Picture:
    """Top: an arm each, by episode. Below: all arms by step, and the pairs."""
    with style():
        drawn = Picture(figsize=(10.2, 6.2), layout="constrained")
        grid = drawn.add_gridspec(2, 1)
        above, below = drawn.add_subfigure(grid[0]), drawn.add_subfigure(grid[1])
        for axes, (arm, runs) in zip(
            above.subplots(1, 3, sharey=True), bright.items(), strict=True
        ):
            training_curve(axes, runs, ARMS[arm], GOOD, OF_ARM[arm])
            axes.label_outer()  # the left one's scores are all's
        left, right = below.subplots(1, 2, width_ratios=(2, 1))
        by_step(left, bright)
        in_pairs(right, pairs)
        if quick:
            drawn.suptitle("quick version: fewer steps and seeds", fontsize=8, color="#444444")
    return drawn


def by_step(axes: Axes, bright: Mapping[str, Sequence[xr.Dataset]]) -> None:
    """Running means against environment steps, one line per run."""
    for arm, runs in bright.items():
        for number, run in enumerate(runs):
            axes.plot(
                run["step"] / 1000, run["running_mean"], color=OF_ARM[arm], ls=LINE_OF_ARM[arm],
                lw=1.2, label=ARMS[arm] if number == 0 else None,
            )  # fmt: skip
    axes.axhline(GOOD, color="#444444", lw=0.8, ls=(0, (5, 3)))
    axes.set(
        title="All arms against what they cost",
        xlabel="environment steps (thousands)",
        ylabel="mean score of 20 episodes",
    )
    axes.legend(loc="lower right")


def in_pairs(axes: Axes, pairs: Pairs) -> None:
    """Greedy scores at 10 photons without and with PIB, a line per seed."""
    for td, pib in zip(pairs.td, pairs.pib, strict=True):
        axes.plot([0, 1], [td, pib], "o-", color="#777777", ms=4, lw=1)
    ends = [float(np.mean(pairs.td)), float(np.mean(pairs.pib))]
    axes.plot([0, 1], ends, "D-", color="#000000", ms=6, lw=2, label="mean")
    interval = "" if np.isnan(pairs.low) else f" ({pairs.low:+.0f} to {pairs.high:+.0f}, 95 %)"
    axes.set(
        title="10 photons, pairs by seed", xlim=(-0.35, 1.35), ylabel="greedy score, 20 episodes",
        xlabel=f"with PIB less without: {pairs.difference:+.0f}{interval}",
    )  # fmt: skip
    axes.set_xticks([0, 1], ["TD alone", "TD + λ PIB"])
    axes.grid(axis="x", visible=False)
    axes.legend(loc="best")
