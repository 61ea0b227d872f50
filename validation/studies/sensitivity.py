"""How much each parameter matters: shares of variance on a whole grid, else a forest.

On a grid: main effects and pairs of a functional analysis of variance, each freed
from what the scatter over seeds adds to it. Elsewhere: how much worse a random
forest predicts held-out designs when one parameter is shuffled, beside how well
it predicts at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.key import Key
from validation.studies.pareto import LEVEL, Array

Codes = NDArray[np.int64]
FEWEST_FOR_FOREST = 20
FOLDS, REPEATS, TREES = 5, 5, 100


@dataclass(frozen=True)
class Effect:
    """axes: one, or a pair beyond its two main effects. value: share of the variance of
    the true figure; with a forest the loss of R^2. low, high: its interval."""

    axes: tuple[int, ...]
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sensitivity:
    """kind: "variance" or "forest". logarithm: of the figure's logarithm. score, error:
    a forest's R^2 on held-out designs and its standard error over folds."""

    kind: str
    effects: Sequence[Effect]
    logarithm: bool
    score: float | None = None
    error: float | None = None


def is_grid(codes: Codes) -> bool:
    """Whether codes (designs, axes) hold every combination exactly once."""
    sizes = [len(np.unique(column)) for column in codes.T]
    return len(codes) == np.prod(sizes) == len(np.unique(codes, axis=0))


def spread_out(values: Array) -> bool:
    """Whether a logarithm tells more: all above 0, over more than a factor of 5."""
    return bool(values.min() > 0 and values.max() > 5 * values.min())


def by_variance(values: Array, codes: Codes, errors: Array) -> Sensitivity:
    """values: (designs,) of a whole grid, means over seeds; codes: (designs, axes).

    errors: (resamples, designs), what the scatter over seeds does to the means.
    The shares are of the given grid: another range of a parameter has another.
    """
    logarithm = spread_out(values)
    scale = 1 / values if logarithm else np.ones_like(values)
    shown = np.log(values) if logarithm else values
    noise = (errors * scale).var(axis=0) if len(errors) else np.zeros_like(values)
    axes = [(i,) for i in range(codes.shape[1])]
    terms = [*axes, *itertools.combinations(range(codes.shape[1]), 2)]
    found = _shares(shown, codes, terms, float(noise.mean()))
    # Drawn again, the scatter is there twice.
    again = np.array([
        _shares(shown + error * scale, codes, terms, 2 * float(noise.mean())) for error in errors
    ]).reshape(-1, len(terms))  # fmt: skip
    low, high = found, found
    if len(again):
        low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    effects = [Effect(*row) for row in zip(terms, found, low, high, strict=True)]
    return Sensitivity("variance", effects, logarithm)


def _shares(values: Array, codes: Codes, terms: Sequence[tuple[int, ...]], noise: float) -> Array:
    """Share of each term in the variance, without `noise` (of one mean)."""
    count = len(values)
    total = max(values.var() - noise * (count - 1) / count, 0.0)
    main = {
        (i,): _between(values, codes[:, i], noise, 0.0) for i in range(codes.shape[1])
    }  # fmt: skip
    parts = []
    for term in terms:
        if len(term) == 1:
            parts.append(main[term])
            continue
        one, two = term
        cells = codes[:, one] * (codes[:, two].max() + 1) + codes[:, two]
        parts.append(_between(values, cells, noise, main[one,] + main[two,]))
    whole = np.array(parts)
    return np.clip(whole / total, 0, 1) if total > 0 else np.zeros(len(terms))


def _between(values: Array, groups: Codes, noise: float, less: float) -> float:
    """Variance of the means of equally large groups, without noise and `less`."""
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, values) / sizes
    return float(means.var() - noise * (len(names) - 1) / len(values) - less)


def by_forest(values: Array, codes: Codes, key: Key) -> Sensitivity | None:
    """Permutation importance on held-out fifths; None for fewer than 20 designs.

    Intervals and error: two standard errors over the folds, which share designs.
    """
    if len(values) < FEWEST_FOR_FOREST:
        return None
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    logarithm = spread_out(values)
    shown = np.log(values) if logarithm else values
    order = key.child("folds").numpy().permutation(len(values))
    scores, losses = [], []
    for fold in range(FOLDS):
        held = np.zeros(len(values), bool)
        held[order[fold::FOLDS]] = True
        state = key.child("forest", fold).entropy() % 2**32
        forest = RandomForestRegressor(TREES, random_state=state)
        forest.fit(codes[~held], shown[~held])
        scores.append(forest.score(codes[held], shown[held]))
        found = permutation_importance(
            forest, codes[held], shown[held], n_repeats=REPEATS, random_state=state
        )
        losses.append(found.importances_mean)
    mean, error = np.mean(losses, axis=0), np.std(losses, axis=0, ddof=1) / np.sqrt(FOLDS)
    effects = [
        Effect((i,), float(m), float(m - 2 * e), float(m + 2 * e))
        for i, (m, e) in enumerate(zip(mean, error, strict=True))
    ]
    return Sensitivity(
        "forest", effects, logarithm,
        float(np.mean(scores)), float(np.std(scores, ddof=1) / np.sqrt(FOLDS)),
    )  # fmt: skip


@dataclass(frozen=True)
class Level:
    """Mean over all designs with one value of an axis, with its interval over seeds."""

    value: object
    mean: float
    low: float
    high: float


def levels(
    values: Array, codes: Codes, axis: int, names: Sequence[object], errors: Array
) -> list[Level]:
    """Means by value of `axis`; names: its values. As in :func:`by_variance`."""
    found = []
    for code in np.unique(codes[:, axis]):
        rows = codes[:, axis] == code
        mean = float(values[rows].mean())
        ends = (mean, mean)
        if len(errors):
            low, high = np.quantile(
                mean + errors[:, rows].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
            )
            ends = (float(low), float(high))
        found.append(Level(names[int(code)], mean, *ends))
    return found
