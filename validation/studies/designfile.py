"""A design study as a TOML file: a study's own keys, and what is searched for.

Beside what `study` knows (base, axes, seeds, limit, quick, when, one method):

    [objectives]      figure or axis = "max" | "min" | { goal = "min", bound = "<= 1e-9" }
    [fixed]           dotted path = value: settings that all points share
    [search]          sampler, points, seed, confidence, batch, population
    [budget]          points, minutes, device_hours
    [[contrast]]      about, figure, better = { path = value }, than = { path = value }
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from twin.config import build, parse_toml, read_text
from twin.errors import ConfigError, UnknownName, nearest
from validation.studies.points import SYNTHETIC, UNITS, Point, Value, configured, is_figure
from validation.studies.proposals import size
from validation.studies.study import Study, parse_study
from validation.studies.trials import Design, Objective
from validation.summary import within

OWN = ("objectives", "fixed", "search", "budget", "contrast")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GoalTable(_Table):
    """bound: designs whose mean over seeds misses it are not on the front."""

    goal: Literal["max", "min"]
    bound: str | None = None


class SearchTable(_Table):
    """sampler: the whole grid, or one that proposes `points` designs.

    seed: of sampler and bootstrap. confidence: see `race`. batch: designs
    proposed at a time, whatever the number of processes. population: of NSGA-II.
    """

    sampler: Literal["grid", "random", "nsga2", "tpe"] = "grid"
    points: Annotated[int, Field(ge=2)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    batch: Annotated[int, Field(ge=1)] = 8
    population: Annotated[int, Field(ge=2)] = 16


class BudgetTable(_Table):
    """points: computed by one call. minutes: of one call. device_hours: training on
    the devices, of all points in the folder."""

    points: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    device_hours: Annotated[float, Field(gt=0)] | None = None


class ContrastTable(_Table):
    """`better` against `than` in `figure`, pair by pair over all other axes."""

    about: str
    figure: str
    better: dict[str, bool | int | float | str]
    than: dict[str, bool | int | float | str]


@dataclass(frozen=True)
class Fixed(Study):
    """A study whose points all have the same further settings."""

    fixed: tuple[tuple[str, Value], ...] = ()

    def points(self) -> Iterator[Point]:
        """Each combination of method, values and seed exactly once."""
        for point in super().points():
            yield replace(point, settings=tuple(sorted((*point.settings, *self.fixed))))


@dataclass(frozen=True)
class DesignStudy:
    """A checked file. text: as it stands, for the record."""

    study: Fixed
    objectives: tuple[Objective, ...]
    search: SearchTable
    budget: BudgetTable
    contrasts: tuple[ContrastTable, ...]
    text: str

    @property
    def wanted(self) -> int:
        """How many designs are tried."""
        whole = size(self.study.axes)
        return whole if self.search.points is None else min(whole, self.search.points)

    def point(self, design: Design, seed: int) -> Point:
        """What is computed for a design and a seed."""
        study = self.study
        return Point(
            base=study.base, method=study.methods[0], seed=seed,
            settings=tuple(sorted((*design, *study.fixed))), when=study.when, quick=study.quick,
            limit=study.limit, data=study.data,
        )  # fmt: skip


def load_design(path: Path | str, data: str | None = None) -> DesignStudy:
    """The design study in a TOML file, checked; ConfigError names file and key."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no design study {path}. Give the path of a TOML file.")
    return parse_design(read_text(path), str(path), path.parent, data)


def parse_design(
    text: str, where: str, folder: Path | None = None, data: str | None = None
) -> DesignStudy:
    """The design study in TOML text; `where` names it in errors."""
    table = parse_toml(text, where)
    own = {name: table.pop(name) for name in OWN if name in table}
    study = parse_study(_written(table), where, folder, data)
    _one_method(study, where)
    search = build(SearchTable, _is_table(own, "search", where), f"{where}.search")
    if search.sampler != "grid" and search.points is None:
        raise ConfigError(
            f"{where}.search.points: sampler = {search.sampler!r} needs the number of designs "
            'to try, got none. Give points = 60, or take sampler = "grid".'
        )
    fixed = _fixed(_is_table(own, "fixed", where), study, where)
    return DesignStudy(
        study=Fixed(**vars(study), fixed=fixed),
        objectives=_objectives(_is_table(own, "objectives", where), study, where),
        search=search,
        budget=build(BudgetTable, _is_table(own, "budget", where), f"{where}.budget"),
        contrasts=_contrasts(own.get("contrast", []), study, where),
        text=text,
    )


def _one_method(study: Study, where: str) -> None:
    if len(study.methods) != 1:
        raise ConfigError(
            f"{where}.methods: a design study compares designs of one method, got "
            f"{list(study.methods)}. Make one study of each."
        )


def _is_table(own: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    table = own.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where}.{name}: expected a table, got {table!r}.")
    return table


def _objectives(table: Mapping[str, Any], study: Study, where: str) -> tuple[Objective, ...]:
    if not table:
        raise ConfigError(
            f'{where}.objectives: expected at least one, e.g. accuracy = "max", got none.'
        )
    return tuple(_objective(name, given, study, f"{where}.objectives") for name, given
                 in table.items())  # fmt: skip


def _objective(name: str, given: Any, study: Study, where: str) -> Objective:
    given = {"goal": given} if isinstance(given, str) else given
    if not isinstance(given, dict):
        raise ConfigError(f'{where}.{name}: expected "max" or "min", got {given!r}.')
    goal = build(GoalTable, given, f"{where}.{name}")
    if name in study.axes:
        if isinstance(study.axes[name][0], bool | str):
            raise ConfigError(f"{where}.{name}: an axis is an objective only if it has numbers.")
    elif not is_figure(name):
        hint = nearest(name, [*UNITS, *study.axes])
        raise UnknownName(f"{where}.{name}: neither a figure nor an axis. {hint}")
    if goal.bound is not None:
        within(0.0, goal.bound)  # refuses what is no bound
    return Objective(name, goal.goal, goal.bound)


def _fixed(table: Mapping[str, Any], study: Study, where: str) -> tuple[tuple[str, Value], ...]:
    for path, value in table.items():
        if path in study.axes:
            raise ConfigError(f"{where}.fixed.{path}: it is an axis too. Leave one out.")
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(f"{where}.fixed.{path}: expected one value, got {value!r}.")
    fixed = tuple(sorted(table.items()))
    if study.base != SYNTHETIC:
        try:
            configured(Point(study.base, study.methods[0], 0, fixed, study.when))
        except ConfigError as error:
            raise type(error)(f"{where}.fixed: {error}") from None
    return fixed


def _contrasts(given: Any, study: Study, where: str) -> tuple[ContrastTable, ...]:
    if not isinstance(given, list):
        raise ConfigError(f"{where}.contrast: expected [[contrast]] tables, got {given!r}.")
    found = tuple(
        build(ContrastTable, table, f"{where}.contrast.{i}") for i, table in enumerate(given)
    )
    for index, contrast in enumerate(found):
        _same_axes(contrast, study, f"{where}.contrast.{index}")
    return found


def _same_axes(contrast: ContrastTable, study: Study, where: str) -> None:
    if set(contrast.better) != set(contrast.than) or not contrast.better:
        raise ConfigError(
            f"{where}: better and than must name the same axes, got {sorted(contrast.better)} "
            f"and {sorted(contrast.than)}."
        )
    for side in (contrast.better, contrast.than):
        for path, value in side.items():
            if path not in study.axes:
                raise UnknownName(f"{where}: no axis {path!r}. {nearest(path, study.axes)}")
            if value not in study.axes[path]:
                raise ConfigError(
                    f"{where}: {path} = {value!r} is not on its axis {list(study.axes[path])}."
                )


# ---- back to TOML -------------------------------------------------------------


def _written(table: Mapping[str, Any]) -> str:
    """What `tomllib` read, as TOML again, without the tables of this module."""
    return "".join(f"{json.dumps(name)} = {_inline(value)}\n" for name, value in table.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = (f"{json.dumps(name)} = {_inline(item)}" for name, item in value.items())
        return f"{{ {', '.join(inside)} }}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    # JSON's strings are TOML's basic strings once nothing but ASCII is in them.
    return json.dumps(value) if isinstance(value, str) else str(value)
