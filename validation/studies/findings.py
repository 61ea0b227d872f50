"""What a design search found: front, certainty, sensitivity, contrasts, the cheapest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.key import Key
from validation.studies import pareto, sensitivity
from validation.studies.contrasts import Contrast, contrast
from validation.studies.designfile import DesignStudy
from validation.studies.pareto import Array, Certainty, Mask
from validation.studies.race import hopeless
from validation.studies.sensitivity import Level, Sensitivity
from validation.studies.trials import Design, Objective, Trials

TESTED = "accuracy"
POINT = 0.01
"""Of accuracy: what a designer may give up for a cheaper design."""


@dataclass(frozen=True)
class Cheapest:
    """The design that costs least in `objective` among those whose mean accuracy is
    within POINT of the best; times: cost of the most accurate design over its cost."""

    objective: Objective
    row: int
    times: float


@dataclass(frozen=True)
class Findings:
    """Arrays over designs, in the order of `designs`; values in their own directions.

    means, low, high: (designs, objectives). counts: seeds. share: of resamples in
    which a design is on the front. lost: hopeless ones.
    """

    study: DesignStudy
    trials: Trials
    designs: Sequence[Design]
    means: Array
    counts: NDArray[np.int64]
    low: Array
    high: Array
    share: Array
    front: Mask
    lost: Mask
    sensitivities: Mapping[str, Sensitivity]
    levels: Mapping[str, Mapping[str, Sequence[Level]]]
    contrasts: Sequence[Contrast]
    cheapest: Sequence[Cheapest]
    best: int | None
    noise: Mapping[str, float]
    """Standard deviation over seeds of each objective, pooled over designs."""
    whole: bool
    """Whether every design of the grid is there."""

    @property
    def objectives(self) -> Sequence[Objective]:
        return self.study.objectives

    @property
    def tested(self) -> Array | None:
        """Mean accuracy on test images, (designs,), where designs are chosen on others."""
        chosen_on = {o.name for o in self.objectives if o.is_accuracy}
        if not chosen_on or TESTED in chosen_on:
            return None
        return self.trials.mean_of(TESTED)

    @property
    def on_front(self) -> list[int]:
        """Rows of the front, by the first objective, best first."""
        rows = np.flatnonzero(self.front).tolist()
        return sorted(rows, key=lambda r: float(self.means[r, 0]) * self.objectives[0].sign)


def findings(study: DesignStudy, trials: Trials) -> Findings:
    """All of it, from what is known so far."""
    means, counts, scatter = trials.means(), trials.counts(), trials.scatter()
    signs = np.array([objective.sign for objective in study.objectives])
    allowed, key = trials.allowed(), Key(study.search.seed).child("bootstrap")
    sure = pareto.certainty(means, counts, scatter, allowed, key)
    best = np.zeros(len(means), bool)
    best[allowed] = pareto.front(means[allowed])
    errors = _errors(counts, scatter, key.child("effects"))
    own = signs * means
    low, high = _ends(sure, signs, study.objectives)
    winner = _most_accurate(study, own, best)
    return Findings(
        study=study, trials=trials, designs=trials.designs, means=own, counts=counts,
        low=low, high=high, share=sure.share, front=best,
        lost=hopeless(means, counts, scatter, study.search.confidence),
        sensitivities=dict(_sensitivities(study, trials, own, errors)),
        levels=_levels(study, trials, own, errors),
        contrasts=[contrast(trials, table) for table in study.contrasts],
        cheapest=[] if winner is None else list(_cheapest(study, own, best, winner)),
        best=winner,
        noise={o.name: float(np.sqrt(v))
               for o, v in zip(study.objectives, scatter.variance, strict=True)}
        if len(means) else {},
        whole=len(means) > 0 and sensitivity.is_grid(codes(study, trials.designs)),
    )  # fmt: skip


def codes(study: DesignStudy, designs: Sequence[Design]) -> NDArray[np.int64]:
    """(designs, axes): places of a design's values on their axes."""
    axes = study.study.axes
    rows = [[list(values).index(dict(d)[p]) for p, values in axes.items()] for d in designs]
    return np.array(rows, np.int64).reshape(len(designs), len(axes))


def _ends(sure: Certainty, signs: Array, objectives: Sequence[Objective]) -> tuple[Array, Array]:
    turned = np.stack([signs * sure.low, signs * sure.high])
    # Deviations pooled from all designs can lead out of what an accuracy may be.
    fractions = [objective.is_accuracy for objective in objectives]
    turned[..., fractions] = turned[..., fractions].clip(0.0, 1.0)
    return turned.min(axis=0), turned.max(axis=0)


def _errors(counts: NDArray[np.int64], scatter: pareto.Scatter, key: Key) -> Array:
    """(resamples, designs, objectives); no resamples while the scatter is unknown."""
    if scatter.freedom == 0:
        return np.zeros((0, len(counts), len(scatter.variance)))
    return pareto.resampled(counts, scatter, key)


def _measured(study: DesignStudy) -> Iterator[tuple[int, Objective]]:
    """Objectives that are figures: an axis as an objective needs no explaining."""
    for column, objective in enumerate(study.objectives):
        if objective.name not in study.study.axes:
            yield column, objective


def _sensitivities(
    study: DesignStudy, trials: Trials, means: Array, errors: Array
) -> Iterator[tuple[str, Sensitivity]]:
    places = codes(study, trials.designs)
    key = Key(study.search.seed).child("sensitivity")
    for column, objective in _measured(study):
        values = means[:, column]
        if len(values) < 2 or np.ptp(values) == 0:
            continue
        if sensitivity.is_grid(places):
            yield objective.name, sensitivity.by_variance(values, places, errors[:, :, column])
        elif (found := sensitivity.by_forest(values, places, key)) is not None:
            yield objective.name, found


def _levels(
    study: DesignStudy, trials: Trials, means: Array, errors: Array
) -> dict[str, dict[str, list[Level]]]:
    """By objective, then axis; only where every other value is met equally often."""
    places = codes(study, trials.designs)
    if len(means) == 0 or not sensitivity.is_grid(places):
        return {}
    return {
        objective.name: {
            path: sensitivity.levels(means[:, column], places, axis, values, errors[:, :, column])
            for axis, (path, values) in enumerate(study.study.axes.items())
        }
        for column, objective in _measured(study)
    }


def _most_accurate(study: DesignStudy, means: Array, front: Mask) -> int | None:
    column = next((i for i, o in enumerate(study.objectives) if o.is_accuracy), None)
    rows = np.flatnonzero(front)
    return None if column is None or not len(rows) else int(rows[means[rows, column].argmax()])


def _cheapest(study: DesignStudy, means: Array, front: Mask, best: int) -> Iterator[Cheapest]:
    accuracy = next(i for i, o in enumerate(study.objectives) if o.is_accuracy)
    near = front & (means[:, accuracy] >= means[best, accuracy] - POINT)
    rows = np.flatnonzero(near)
    for column, objective in enumerate(study.objectives):
        if objective.goal == "min":
            # Of equal costs, the more accurate design.
            order = np.lexsort((-means[rows, accuracy], means[rows, column]))
            row = int(rows[order[0]])
            cost = means[row, column]
            yield Cheapest(objective, row, float(means[best, column] / cost) if cost else np.inf)
