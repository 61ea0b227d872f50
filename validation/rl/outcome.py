"""What a reinforced run left: its episodes as a data set, and the numbers that count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from pib.reinforcement.training import SOLVED_EPISODES, Training
from validation.rl.environments import Facts
from validation.summary import Figure, mean_and_error

WINDOW = 20
COLUMNS = {
    "score": ("1", "sum of an episode's rewards"),
    "step": ("1", "environment steps at the end of the episode"),
    "frozen": ("1", "1 where nothing was learnt in the episode"),
    "temporal": ("1", "Huber loss of the last unit's temporal difference, mean"),
    "i_yz": ("bit", "I(Y;Z) of the last unit, mean"),
    "i_xz": ("bit", "I(X;Z) of the last unit, mean"),
}


def running_mean(told: Sequence[float] | np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of the last `window` scores told, NaN before there are as many."""
    scores = np.asarray(told, np.float64)
    means = np.full(len(scores), np.nan)
    if len(scores) >= window:
        sums = np.concatenate([[0.0], np.cumsum(scores)])
        means[window - 1 :] = (sums[window:] - sums[:-window]) / window
    return means


def steps_until(data: xr.Dataset, level: float, window: int) -> float:
    """Steps until the mean of the last `window` episodes reached `level`; else NaN."""
    means = running_mean(data["score"].values, window)
    reached = np.flatnonzero(means >= level)
    return float(data["step"].values[reached[0]]) if len(reached) else math.nan


def dataset(training: Training, greedy: Sequence[float], **facts: Any) -> xr.Dataset:
    """Episodes and greedy evaluation; `facts` become attributes."""
    columns = {
        name: ("episode", [row[name] for row in training.episodes], {"units": unit, "about": about})
        for name, (unit, about) in COLUMNS.items()
    }
    means = running_mean([row["score"] for row in training.episodes])
    about = {"units": "1", "about": f"mean score of the last {WINDOW} episodes"}
    data = xr.Dataset(
        {
            **columns,
            "running_mean": ("episode", means, about),
            "greedy": ("fresh", list(greedy), {"units": "1", "about": "scores of greedy play"}),
        },
        coords={"episode": np.arange(1, len(means) + 1)},
    )
    return data.assign_attrs(
        steps=training.step, updates=training.updates, solved=int(training.solved), **facts
    )


def figures(data: xr.Dataset, known: Facts, seed: int) -> list[Figure]:
    """The numbers of one run, without bounds."""
    scores, greedy = data["score"].values, data["greedy"].values
    mean, error = mean_and_error(greedy.tolist())
    found = [
        Figure("greedy score", mean, n=len(greedy), standard_error=error, seeds=[seed]),
        Figure("worst greedy score", float(greedy.min()), n=len(greedy), seeds=[seed]),
        Figure("environment steps", data.attrs["steps"], unit="steps", seeds=[seed]),
        Figure("episodes", len(scores), seeds=[seed]),
        Figure("updates", data.attrs["updates"], seeds=[seed]),
    ]
    for window in (WINDOW, SOLVED_EPISODES):
        means = running_mean(scores, window)
        best = float(np.nanmax(means)) if len(scores) >= window else None
        found.append(Figure(f"best mean of {window}", best, n=window, seeds=[seed]))
    for level, window in (
        (known.fair, WINDOW),
        (known.good, WINDOW),
        (known.good, SOLVED_EPISODES),
    ):
        if level is not None:
            steps = steps_until(data, level, window)
            name = f"steps until mean of {window} >= {level:g}"
            found.append(Figure(name, steps, unit="steps", seeds=[seed]))
    return found
