"""What is known about each design: its figures for every seed so far."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin.errors import ConfigError, nearest
from validation.studies.pareto import Array, Mask, Scatter
from validation.studies.points import Settings, Value, is_figure, unit_of
from validation.studies.store import Result
from validation.summary import within

Design = Settings
"""The values of all axes, sorted by path."""


@dataclass(frozen=True)
class Objective:
    """A figure that points give, or an axis whose value is itself a cost.

    goal: "max" or "min". bound: e.g. ">= 0.87"; designs that miss it on the mean
    are no candidates for the front.
    """

    name: str
    goal: str
    bound: str | None = None

    @property
    def sign(self) -> float:
        return -1.0 if self.goal == "max" else 1.0

    @property
    def is_accuracy(self) -> bool:
        """On whatever images: what "the best design" means."""
        return self.name.startswith("accuracy")

    @property
    def unit(self) -> str:
        """SI unit of a figure; "1" for fractions, counts and axes, whose names tell theirs."""
        return unit_of(self.name)

    @property
    def title(self) -> str:
        """What people read: the last part of the path, in words."""
        return titled(self.name)

    def of(self, result: Result) -> float:
        """The value for one result, in `unit`; ConfigError if it has none."""
        settings = dict(result.point.settings)
        if self.name in settings:
            return float(settings[self.name])
        if self.name not in result.figures:
            hint = nearest(self.name, [*result.figures, *settings])
            raise ConfigError(f"objectives.{self.name}: the points give no such figure. {hint}")
        return result.figures[self.name]


def titled(path: str) -> str:
    """A dotted path or a figure's name in words."""
    if is_figure(path):
        name, _, unit = path.partition("_unit_")
        known = {
            "accuracy_validation": "accuracy on validation",
            "joules_per_image": "energy per image",
            "joules_training": "energy of training",
        }
        words = known.get(name) or re.sub(r"_(m2|s)$", "", name).replace("_", " ")
        return f"{words} of unit {unit}" if unit else words
    parts = path.split(".")
    unit = next((f" (unit {int(p) + 1})" for p in parts if p.isdigit()), "")
    return parts[-1].replace("adc", "ADC").replace("dac", "DAC").replace("_", " ") + unit


@dataclass
class Trials:
    """Results by design and seed. axes: dotted path to its values."""

    objectives: Sequence[Objective]
    axes: Mapping[str, Sequence[Value]]
    values: dict[Design, dict[int, list[float]]] = field(default_factory=dict)
    failed: dict[Design, str] = field(default_factory=dict)
    results: dict[tuple[Design, int], Result] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take a result in; a second one of the same design and seed replaces the first."""
        design = self.design(result)
        if result.status != "done":
            self.failed.setdefault(design, result.reason)
            return
        row = [objective.of(result) for objective in self.objectives]
        if not np.isfinite(row).all():
            self.failed.setdefault(design, "a figure is not finite")
            return
        self.values.setdefault(design, {})[result.point.seed] = row
        self.results[design, result.point.seed] = result

    def design(self, result: Result) -> Design:
        """The part of the point's settings that is varied."""
        return tuple(sorted((p, v) for p, v in result.point.settings if p in self.axes))

    @property
    def designs(self) -> list[Design]:
        """Designs with figures, in a fixed order; those that failed once are out."""
        return sorted((d for d in self.values if d not in self.failed), key=self._place)

    @property
    def known(self) -> set[Design]:
        """All designs that need not be proposed again."""
        return {*self.values, *self.failed}

    def _place(self, design: Design) -> tuple[int, ...]:
        settings = dict(design)
        return tuple(list(values).index(settings[path]) for path, values in self.axes.items())

    def seeds(self, design: Design) -> list[int]:
        return sorted(self.values.get(design, {}))

    def groups(self, designs: Iterable[Design] | None = None) -> list[Array]:
        """Values (seeds, objectives) of each design, signed to want to be small."""
        signs = np.array([objective.sign for objective in self.objectives])
        chosen = self.designs if designs is None else designs
        return [signs * np.array([self.values[d][s] for s in self.seeds(d)]) for d in chosen]

    def means(self) -> Array:
        """(designs, objectives), signed to want to be small."""
        groups = self.groups()
        return np.array([group.mean(axis=0) for group in groups]).reshape(
            len(groups), len(self.objectives)
        )

    def mean_of(self, figure: str) -> Array:
        """(designs,) means over seeds of any figure that the points gave; NaN without."""
        return np.array([
            np.mean([self.results[d, s].figures.get(figure, np.nan) for s in self.seeds(d)])
            for d in self.designs
        ])  # fmt: skip

    def counts(self) -> NDArray[np.int64]:
        """Seeds of each design."""
        return np.array([len(self.values[d]) for d in self.designs], np.int64)

    def scatter(self) -> Scatter:
        return Scatter.of(self.groups())

    def allowed(self, confidence: float | None = None) -> Mask:
        """Which designs keep all bounds on their means; with `confidence`, which may
        keep them, given their scatter over seeds."""
        means, keep = self.means(), np.ones(len(self.designs), bool)
        slack = np.zeros_like(means)
        if confidence is not None:
            slack = self.scatter().reach(self.counts(), confidence)
        for column, objective in enumerate(self.objectives):
            if objective.bound is not None:
                values, reach = objective.sign * means[:, column], slack[:, column]
                keep &= [
                    any(within(value + shift, objective.bound) for shift in (-far, 0.0, far))
                    for value, far in zip(values, reach, strict=True)
                ]
        return keep
