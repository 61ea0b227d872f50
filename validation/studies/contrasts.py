"""One choice against another, pair by pair over everything else that was varied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from validation.studies.designfile import ContrastTable
from validation.studies.pareto import LEVEL
from validation.studies.points import Value, unit_of
from validation.studies.trials import Design, Trials


@dataclass(frozen=True)
class Contrast:
    """differences: `better` minus `than` for each pair of designs that agree in all other
    axes, a mean over the seeds that both have. low, high: Student's interval over
    the pairs, taken as a sample of such designs; NaN for fewer than two."""

    about: str
    figure: str
    differences: Sequence[float]
    mean: float
    low: float
    high: float
    standard_error: float

    @property
    def unit(self) -> str:
        return unit_of(self.figure)

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def contrast(trials: Trials, table: ContrastTable) -> Contrast:
    """What the designs tried say about it."""
    found = list(_differences(trials, table))
    count = len(found)
    mean = float(np.mean(found)) if found else math.nan
    error = float(np.std(found, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    reach = error * float(student.ppf((1 + LEVEL) / 2, count - 1)) if count > 1 else math.nan
    return Contrast(table.about, table.figure, found, mean, mean - reach, mean + reach, error)


def _differences(trials: Trials, table: ContrastTable) -> Iterator[float]:
    designs = set(trials.designs)
    for design in trials.designs:
        if not _has(design, table.better):
            continue
        partner = tuple(sorted((dict(design) | table.than).items()))
        both = sorted(set(trials.seeds(design)) & set(trials.seeds(partner)))
        if partner in designs and both:
            yield float(np.mean([
                _figure(trials, design, seed, table.figure)
                - _figure(trials, partner, seed, table.figure)
                for seed in both
            ]))  # fmt: skip


def _has(design: Design, settings: Mapping[str, Value]) -> bool:
    have = dict(design)
    return all(have[path] == value for path, value in settings.items())


def _figure(trials: Trials, design: Design, seed: int, name: str) -> float:
    return trials.results[design, seed].figures.get(name, math.nan)
