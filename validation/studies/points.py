"""One point of a study: what is computed, under which name its result is kept.

Importing this module imports no torch, so that worker processes of cheap
points start at once.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from twin.config import build
from twin.errors import ConfigError, DataError
from validation.baselines.registry import STUDIED, module_of
from validation.config import RunConfig, load_config
from validation.studies.codeversion import WORK_OF_COMPARISONS, code_version, version_of

Value = bool | int | float | str
Settings = tuple[tuple[str, Value], ...]

SYNTHETIC = "synthetic"
"""Base and method of points without physics (see `validation.studies.synthetic`)."""

METHODS = (*STUDIED, SYNTHETIC)
WHENS = ("training", "test")
STUDY, COMPARISON = "study", "comparison"
"""Kinds of points: what computes them is in `work` or in `compare.work`."""

WAIT = "test.wait_s"
"""A setting of points alone: seconds that all devices rest before the test."""

UNITS: dict[str, str] = {
    "accuracy": "1",
    "accuracy_own_readout": "1",
    "accuracy_readout_redone": "1",
    "accuracy_validation": "1",
    "accuracy_redone": "1",
    "joules_per_image": "J",
    "joules_training": "J",
    "latency_s": "s",
    "area_m2": "m2",
    "device_seconds_training": "s",
    "passes": "1",
    "writes": "1",
    "wall_seconds": "s",
}
"""Units of the figures that points give (see `unit_of`)."""

OF_UNITS = re.compile(r"(accuracy|joules_per_image|latency_s)_unit_[1-9]\d*")
"""Figures of single units, "accuracy_unit_2"."""

VOLATILE = frozenset({"wall_seconds", "host"})
"""Figures that differ between two runs of the same point and are never compared."""


def is_figure(name: str) -> bool:
    """Whether points may give a figure of this name."""
    return name in UNITS or OF_UNITS.fullmatch(name) is not None


def unit_of(name: str) -> str:
    """The SI unit of a figure, "1" for fractions, counts and what is no figure."""
    found = OF_UNITS.fullmatch(name)
    return UNITS.get(found[1] if found else name, "1")


@dataclass(frozen=True)
class Point:
    """One thing to compute.

    base: a preset, the path of a run configuration, or "synthetic". method:
    see METHODS. settings: sorted (dotted path, value). when: "training": the
    settings hold from the start; "test": the network is trained as the base
    says and dials are turned afterwards. limit: training images. data: folder
    with data files; where they lie does not change what is computed. kind: STUDY, or
    COMPARISON of methods under a ceiling of physical passes.

    Dotted paths: "unit.options.NAME" of all units whose backend knows NAME,
    "unit.0.options.NAME" of the first unit, any field of a RunConfig
    ("unit.epochs", "training.batch", "data.name"), and "dial.NAME" of all
    units that declare the dial or "unit.1.dial.NAME" of one; "test.wait_s".
    """

    base: str
    method: str
    seed: int
    settings: Settings = ()
    when: str = "training"
    quick: bool = False
    limit: int | None = None
    data: str | None = None
    kind: str = STUDY

    def __post_init__(self) -> None:
        ordered = tuple(sorted(((str(n), v) for n, v in self.settings), key=lambda s: s[0]))
        if len({name for name, _ in ordered}) < len(ordered):
            raise ConfigError(f"a point sets one path twice: {self.told()}. Leave one out.")
        object.__setattr__(self, "settings", ordered)

    def key(self) -> str:
        """The name of the point's result: a digest of everything it depends on.

        That is the contents of the base (not its name), the settings, and the
        code behind it, without comments and docstrings.
        """
        content = asdict(self) | {
            "base": _base_content(self.base),
            "settings": [[name, plain_number(value)] for name, value in self.settings],
            "code": self._code(),
        }
        del content["data"]
        return hashlib.blake2b(canonical(content), digest_size=16).hexdigest()

    def _code(self) -> str:
        backends = _backends(self.base)
        if self.kind == STUDY:
            return code_version(*backends)
        # A method that is polished does not throw away what others gave.
        return version_of(WORK_OF_COMPARISONS, module_of(self.method), backends=backends)

    def plain(self) -> dict[str, Any]:
        """The point in JSON's types."""
        return asdict(self) | {"settings": [list(pair) for pair in self.settings]}

    @classmethod
    def parsed(cls, content: Mapping[str, Any]) -> Point:
        """The point that :meth:`plain` gave; DataError for anything else."""
        try:
            settings = tuple((str(name), value) for name, value in content["settings"])
            known = {f.name for f in fields(cls)}
            return cls(**{k: v for k, v in content.items() if k in known} | {"settings": settings})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a point of a study: {error}. Remove the file.") from None

    def told(self) -> str:
        """The point in one line for people."""
        parts = [f"{name}={value}" for name, value in self.settings]
        return ", ".join([self.method, *parts, f"seed {self.seed}"])


def canonical(content: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal contents, equal bytes."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def expand(
    base: str,
    axes: Mapping[str, Sequence[Value]],
    *,
    methods: Sequence[str] = ("pib",),
    seeds: Sequence[int] = (0,),
    **common: Any,
) -> Iterator[Point]:
    """Every combination of methods, axis values and seeds exactly once.

    Seeds vary fastest, then the last axis. common: further fields of Point.
    """
    for method, values in itertools.product(methods, itertools.product(*axes.values())):
        settings = tuple(zip(axes, values, strict=True))
        for seed in seeds:
            yield Point(base=base, method=method, seed=seed, settings=settings, **common)


# ---- settings -------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A dial to turn: of unit `unit` (from 0), or of all that declare it (None)."""

    unit: int | None
    name: str
    value: float


def turns(point: Point) -> list[Turn]:
    """The dials among the point's settings."""
    found = ((_dial(path), path, value) for path, value in point.settings)
    return [Turn(*dial, _number(path, value)) for dial, path, value in found if dial is not None]


def configured(point: Point) -> RunConfig:
    """The base with all settings of the point that are not dials.

    quick and limit are left to whoever runs it. Raises ConfigError that names
    the path. The units' own options are checked when their devices are made.
    """
    table = copy.deepcopy(load_config(point.base).model_dump())
    for path, value in point.settings:
        if _dial(path) is None and path != WAIT:
            put(table, path, value)
    return build(RunConfig, table, point.base)


def put(table: dict[str, Any], path: str, value: Value) -> None:
    """Set what a dotted path leads to, in a table that RunConfig dumped."""
    first, *rest = path.split(".")
    if first != "unit":
        *_, last = parts = [first, *rest]
        _descend(table, parts, path)[last] = value
        return
    for unit, parts in _units(table, rest, path):
        _descend(unit, parts, path)[parts[-1]] = value


def _units(
    table: dict[str, Any], rest: list[str], path: str
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The unit tables that a path means, and what is left of the path."""
    if not rest:
        raise ConfigError(f"{path}: expected unit.NAME or unit.0.NAME, e.g. unit.epochs.")
    number, count = _index(rest[0]), len(table["unit"])
    if number is not None:
        if number >= count or len(rest) < 2:
            raise ConfigError(
                f"{path}: expected unit.0.NAME to unit.{count - 1}.NAME, the base has {count} "
                f"unit{'s' if count > 1 else ''}."
            )
        yield table["unit"][number], rest[1:]
        return
    chosen = table["unit"]
    if rest[0] == "options" and len(rest) > 1:
        chosen = [unit for unit in chosen if _knows(unit["backend"], rest[1])] or chosen
    for unit in chosen:
        yield unit, rest


def _descend(table: dict[str, Any], parts: Sequence[str], path: str) -> dict[str, Any]:
    for part in parts[:-1]:
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(
                f"{path}: {part!r} is {below!r} in the base, not a table that {parts[-1]!r} "
                f"could be put into. Vary {part!r} as a whole, or give it as a table in the base."
            )
        table = below
    return table


def _knows(backend: str, option: str) -> bool:
    from validation.studies.backendoptions import option_names

    known = option_names(backend)
    return known is None or option in known


def _dial(path: str) -> tuple[int | None, str] | None:
    """Unit and name if the path means a dial, else None."""
    match path.split("."):
        case ["dial", name]:
            return None, name
        case ["unit", "dial", name]:
            return None, name
        case ["unit", number, "dial", name] if _index(number) is not None:
            return int(number), name
    return None


def _index(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _number(path: str, value: Value) -> float:
    if isinstance(value, bool | str):
        raise ConfigError(f"{path}: a dial takes a number, got {value!r}.")
    return float(value)


# ---- the content key --------------------------------------------------------


def plain_number(value: Value) -> Value:
    """3.0 and 3 are one value: a range gives floats where a list gives integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _base_content(base: str) -> Any:
    return base if base == SYNTHETIC else json.loads(_dumped(base, _changed_at(base)))


def _backends(base: str) -> tuple[str, ...]:
    if base == SYNTHETIC:
        return ()
    units = json.loads(_dumped(base, _changed_at(base)))["unit"]
    return tuple(sorted({unit["backend"] for unit in units}))


def _changed_at(base: str) -> float:
    """So that a configuration file that is edited is read again."""
    return os.stat(base).st_mtime_ns if Path(base).is_file() else 0


@lru_cache(maxsize=64)
def _dumped(base: str, changed_at: float) -> str:  # noqa: ARG001
    # What a run is for and what it should reach do not change what it gives.
    return load_config(base).model_dump_json(exclude={"about", "bounds"})
