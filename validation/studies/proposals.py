"""Which designs to try next: the whole grid, or Optuna as ask-and-tell.

Optuna keeps no record here. Its study is made anew in memory from what the folder
holds, its sampler seeded with seed + number of designs told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from twin.errors import ConfigError
from twin.key import Key
from validation.studies.points import Value
from validation.studies.trials import Design

SAMPLERS = ("grid", "random", "nsga2", "tpe")
LARGEST_GRID = 100_000
TRIES = 8
"""Proposals of known designs per new one, before a design is drawn instead."""


class Proposer(Protocol):
    """ask: up to n designs that are not among `taken`, fewer when there are no more.
    tell: the objectives of a design, in their own directions; None: it failed."""

    def ask(self, n: int, taken: set[Design]) -> list[Design]: ...

    def tell(self, design: Design, values: Sequence[float] | None) -> None: ...


def size(axes: Mapping[str, Sequence[Value]]) -> int:
    """How many designs there are."""
    return math.prod(len(values) for values in axes.values())


def everything(axes: Mapping[str, Sequence[Value]]) -> Iterator[Design]:
    """Every design exactly once."""
    for values in itertools.product(*axes.values()):
        yield tuple(sorted(zip(axes, values, strict=True)))


class Grid:
    """All designs, in a drawn order: what a budget cuts off is a fair sample."""

    def __init__(self, axes: Mapping[str, Sequence[Value]], key: Key) -> None:
        if size(axes) > LARGEST_GRID:
            raise ConfigError(
                f"search.sampler: a grid of {size(axes):,} designs is too large (at most "
                f"{LARGEST_GRID:,}). Take nsga2, tpe or random, with search.points."
            )
        designs = list(everything(axes))
        self._order = [designs[i] for i in key.numpy().permutation(len(designs))]

    def ask(self, n: int, taken: set[Design]) -> list[Design]:
        """The next n in the order."""
        return list(itertools.islice((d for d in self._order if d not in taken), n))

    def tell(self, design: Design, values: Sequence[float] | None) -> None:
        """A grid does not learn."""


class Drawn:
    """Designs drawn evenly, none twice."""

    def __init__(self, axes: Mapping[str, Sequence[Value]], key: Key) -> None:
        self._axes, self._rng = axes, key.numpy()

    def ask(self, n: int, taken: set[Design]) -> list[Design]:
        """n new designs; all that are left where there are few."""
        if size(self._axes) - len(taken) <= n or size(self._axes) <= 1000:
            left = [d for d in everything(self._axes) if d not in taken]
            return [left[i] for i in self._rng.permutation(len(left))[:n]]
        found: list[Design] = []
        while len(found) < n:
            drawn = ((p, v[int(self._rng.integers(len(v)))]) for p, v in self._axes.items())
            design = tuple(sorted(drawn))
            if design not in taken and design not in found:
                found.append(design)
        return found

    def tell(self, design: Design, values: Sequence[float] | None) -> None:
        """Chance does not learn."""


class Asked:
    """Optuna's NSGA-II or TPE over the values of the axes.

    told: designs known when this begins, with their objectives. goals: "max" or
    "min" of each objective. Numbers are told as their place in the axis, so
    that neighbours are neighbours; texts and switches as categories.
    """

    def __init__(
        self,
        sampler: str,
        axes: Mapping[str, Sequence[Value]],
        goals: Sequence[str],
        seed: int,
        population: int,
        told: Mapping[Design, Sequence[float]],
    ) -> None:
        self._optuna = optuna = _optuna()
        self._axes, self._open = axes, dict[Design, Any]()
        self._spare = Drawn(axes, Key(seed).child("spare", len(told)))
        self._told = dict(told)
        make: Callable[..., Any] = {
            "nsga2": lambda seed: optuna.samplers.NSGAIISampler(
                population_size=population, seed=seed
            ),
            "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
        }[sampler]
        with _quietly(optuna):
            self._study = optuna.create_study(
                directions=["maximize" if goal == "max" else "minimize" for goal in goals],
                sampler=make((seed + len(told)) % 2**32),
            )
            self._space = {path: self._distribution(values) for path, values in axes.items()}
            for design, values in told.items():
                self._enter(design, values)

    def ask(self, n: int, taken: set[Design]) -> list[Design]:
        """n new designs; where Optuna keeps to known ones, others are drawn."""
        found: list[Design] = []
        if size(self._axes) - len(taken) <= n:
            return self._spare.ask(n, taken)
        with _quietly(self._optuna):
            for _ in range(TRIES * n):
                if len(found) == n:
                    return found
                trial = self._study.ask(self._space)
                design = self._design(trial.params)
                if design in taken or design in found:
                    self._again(trial, design)
                else:
                    self._open[design] = trial
                    found.append(design)
        return found + self._spare.ask(n - len(found), {*taken, *found})

    def tell(self, design: Design, values: Sequence[float] | None) -> None:
        """What came of a design, asked for here or not."""
        with _quietly(self._optuna):
            trial = self._open.pop(design, None)
            if values is not None:
                self._told[design] = values
            if trial is not None:
                self._finish(trial, values)
            elif values is not None:
                self._enter(design, values)

    def _enter(self, design: Design, values: Sequence[float]) -> None:
        # Through the door that a sampler knows, or NSGA-II counts it in no generation.
        settings = dict(design)
        self._study.enqueue_trial({p: self._code(p, settings[p]) for p in self._axes})
        self._finish(self._study.ask(self._space), values)

    def _again(self, trial: Any, design: Design) -> None:
        """A known design costs nothing: its values are told once more."""
        self._finish(trial, self._told.get(design))

    def _finish(self, trial: Any, values: Sequence[float] | None) -> None:
        if values is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, list(values))

    def _distribution(self, values: Sequence[Value]) -> Any:
        of = self._optuna.distributions
        if isinstance(values[0], bool | str):
            return of.CategoricalDistribution(tuple(values))
        return of.IntDistribution(0, len(values) - 1)

    def _code(self, path: str, value: Value) -> Value:
        return value if isinstance(value, bool | str) else list(self._axes[path]).index(value)

    def _design(self, params: Mapping[str, Any]) -> Design:
        pairs = (
            (p, params[p] if isinstance(v[0], bool | str) else v[params[p]])
            for p, v in self._axes.items()
        )
        return tuple(sorted(pairs))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "search.sampler: nsga2 and tpe need Optuna: pip install 'pib-twin[optimise]'. "
            'Or take sampler = "grid" or "random".'
        ) from None
    return optuna


@contextmanager
def _quietly(optuna: Any) -> Iterator[None]:
    """Optuna tells of every trial on its own; here the table of designs does."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
