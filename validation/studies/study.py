"""A study as a TOML file: what is varied, over what, with which methods and seeds.

Everything in the file is checked before anything runs. Values carry no units,
the names of the parameters do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from twin.config import build, parse_toml, read_text
from twin.errors import ConfigError, UnknownName, nearest
from validation.studies.axischeck import check_axes
from validation.studies.points import (
    METHODS,
    SYNTHETIC,
    UNITS,
    Point,
    Value,
    expand,
    is_figure,
    plain_number,
)

MOST_VALUES = 10_000
"""Of one axis."""

MOST_POINTS = 100_000
"""Of one study: the dataset is held in memory as a whole."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RangeTable(_Table):
    """Values from `from` to `to`, both included, in `steps` values; log: by equal
    factors."""

    start: float = Field(alias="from")
    stop: float = Field(alias="to")
    steps: Annotated[int, Field(ge=2, le=MOST_VALUES)]
    log: bool = False


class StudyTable(_Table):
    """The file without its axes.

    base: a preset, or a run configuration (a path from the file's folder).
    methods: see `points.METHODS`. seeds: a number of them, or a list. when,
    limit, quick: see `points.Point`. record: figures to keep, all if empty;
    the first one is what "best" means.
    """

    about: str = ""
    base: str
    methods: tuple[str, ...] = ("pib",)
    seeds: Annotated[int, Field(ge=1, le=1000)] | tuple[Annotated[int, Field(ge=0)], ...] = 1
    when: Literal["training", "test"] = "training"
    limit: Annotated[int, Field(ge=20)] | None = None
    quick: bool = False
    record: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A checked study. axes: dotted path to its values, in the order of the file."""

    about: str
    base: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    axes: Mapping[str, tuple[Value, ...]]
    when: str = "training"
    limit: int | None = None
    quick: bool = False
    record: tuple[str, ...] = ()
    data: str | None = None

    @property
    def size(self) -> int:
        """How many points there are."""
        sizes = [len(values) for values in self.axes.values()]
        return math.prod(sizes) * len(self.methods) * len(self.seeds)

    def points(self) -> Iterator[Point]:
        """Each combination of method, values and seed exactly once."""
        return expand(
            self.base, self.axes, methods=self.methods, seeds=self.seeds, when=self.when,
            quick=self.quick, limit=self.limit, data=self.data,
        )  # fmt: skip


def load_study(path: Path | str, data: str | None = None) -> Study:
    """The study in a TOML file, checked. data: folder with data files.

    Raises ConfigError that names the file and the key.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no study file {path}. Give the path of a TOML file.")
    return parse_study(read_text(path), str(path), path.parent, data)


def parse_study(
    text: str, where: str, folder: Path | None = None, data: str | None = None
) -> Study:
    """The study in TOML text; `where` names it in errors, `folder` is where paths start."""
    table = parse_toml(text, where)
    axes = table.pop("axes", {})
    if not isinstance(axes, dict):
        raise ConfigError(f"{where}.axes: expected a table of axes, got {axes!r}.")
    head = build(StudyTable, table, where)
    study = Study(
        about=head.about,
        base=_base(head.base, where, folder),
        methods=_methods(head, where),
        seeds=_seeds(head.seeds, where),
        axes=_axes(axes, where),
        when=head.when,
        limit=head.limit,
        quick=head.quick,
        record=_recorded(head.record, where),
        data=data,
    )
    if study.size > MOST_POINTS:
        raise ConfigError(
            f"{where}.axes: {study.size:.3g} points, expected at most {MOST_POINTS}. Leave out "
            "values, methods or seeds."
        )
    check_axes(study.base, study.methods, study.axes, where)
    return study


def _base(base: str, where: str, folder: Path | None) -> str:
    from validation.config import load_config

    if base == SYNTHETIC:
        return base
    if base.endswith(".toml") and folder is not None:
        base = str(folder / base)
    try:
        load_config(base)
    except ConfigError as error:
        raise type(error)(f"{where}.base: {error}") from None
    return base


def _methods(head: StudyTable, where: str) -> tuple[str, ...]:
    for name in head.methods:
        if name not in METHODS:
            raise UnknownName(f"{where}.methods: no method {name!r}. {nearest(name, METHODS)}")
        if (name == SYNTHETIC) != (head.base == SYNTHETIC):
            raise ConfigError(
                f"{where}.methods: the method {SYNTHETIC!r} goes with base = {SYNTHETIC!r} and "
                f"with no other, got base {head.base!r} and method {name!r}."
            )
    return _several(head.methods, f"{where}.methods")


def _seeds(seeds: int | tuple[int, ...], where: str) -> tuple[int, ...]:
    return tuple(range(seeds)) if isinstance(seeds, int) else _several(seeds, f"{where}.seeds")


def _several(values: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not values:
        raise ConfigError(f"{where}: expected at least one, got an empty list. Name one.")
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ConfigError(f"{where}: {twice[0]!r} is there twice. Leave one out.")
    return values


def _recorded(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    for name in names:
        if not is_figure(name):
            raise UnknownName(f"{where}.record: no figure {name!r}. {nearest(name, UNITS)}")
    return _several(names, f"{where}.record") if names else names


# ---- axes -------------------------------------------------------------------


def _axes(table: Mapping[str, Any], where: str) -> dict[str, tuple[Value, ...]]:
    """Axes of a table, whether their dotted paths are quoted or not."""
    axes: dict[str, tuple[Value, ...]] = {}
    for path, given in _flat(table, ""):
        name = f"{where}.axes.{path}"
        if path in axes:
            raise ConfigError(f"{name}: the axis is there twice. Leave one out.")
        axes[path] = _values(given, name)
    return axes


def _flat(table: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, item in table.items():
        path = f"{above}.{name}" if above else name
        # A range is a table too; it has the key "from", which no parameter has.
        if isinstance(item, dict) and item and not {"from", "to", "steps"} & set(item):
            yield from _flat(item, path)
        else:
            yield path, item


def _values(given: Any, where: str) -> tuple[Value, ...]:
    if isinstance(given, dict):
        values = _range(build(RangeTable, given, where), where)
    elif isinstance(given, list):
        values = tuple(_value(value, where) for value in given)
    else:
        raise ConfigError(
            f"{where}: expected a list of values or {{ from, to, steps }}, got {given!r}."
        )
    if len(values) < 2:
        raise ConfigError(
            f"{where}: an axis needs at least two values, got {list(values)}. A value that does "
            "not vary belongs into the base."
        )
    seen = [(isinstance(value, bool), plain_number(value)) for value in values]
    if len(set(seen)) < len(seen):
        twice = next(v for i, v in enumerate(values) if seen[i] in seen[:i])
        raise ConfigError(f"{where}: the value {twice!r} is there twice. Leave one out.")
    kinds = {("number" if not isinstance(v, bool | str) else type(v).__name__) for v in values}
    if len(kinds) > 1:
        raise ConfigError(f"{where}: expected values of one kind, got {list(values)}.")
    return values


def _value(value: Any, where: str) -> Value:
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{where}: expected numbers, texts or true and false, got {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected finite numbers, got {value!r}.")
    return value


def _range(table: RangeTable, where: str) -> tuple[Value, ...]:
    start, stop, last = table.start, table.stop, table.steps - 1
    if not math.isfinite(stop - start):
        raise ConfigError(f"{where}: {start:g} to {stop:g} is too wide. Narrow it.")
    if table.log and (start <= 0 or stop <= 0):
        raise ConfigError(
            f"{where}: log = true needs from and to above 0, got {start:g} and {stop:g}."
        )
    shares = [step / last for step in range(1, last)]
    if table.log:
        wide = math.log(stop) - math.log(start)
        between = [start * math.exp(wide * share) for share in shares]
    else:
        between = [start + (stop - start) * share for share in shares]
    # 12 digits: 0.1 to 0.3 gives 0.2, and 10 to 1000 gives 100.
    values = (start, *(float(f"{value:.12g}") for value in between), stop)
    return tuple(map(plain_number, values))
