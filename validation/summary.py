"""What a measuring command found: figures with bounds, as JSON and as a table.

Imports numpy and rich (for the table); torch is looked at only if something
else has imported it.
"""

from __future__ import annotations

import json
import math
import operator
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.errors import ConfigError, DataError
from twin.files import write_atomic

if TYPE_CHECKING:
    from rich.table import Table

FILE = "summary.json"
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_BOUND = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


def within(value: float, bound: str) -> bool:
    """Whether `value` satisfies e.g. ">= 0.982" or ">= 0.9 and <= 1.1"."""
    return all(compare(value, limit) for compare, limit in _parsed(bound))


def _parsed(bound: str) -> list[tuple[Any, float]]:
    terms = []
    for part in bound.split(" and "):
        match = _BOUND.fullmatch(part)
        try:
            terms.append((_COMPARE[match[1]], float(match[2])))  # type: ignore[index]
        except (TypeError, ValueError):
            raise ConfigError(
                f"bound {bound!r}: expected e.g. '>= 0.982', '< 60' or '>= 0.9 and <= 1.1'."
            ) from None
    return terms


@dataclass(frozen=True)
class Figure:
    """One measured number and the bound it should keep.

    value: in `unit` ("1" for a fraction); None or NaN means it is absent,
    infinity counts as a value. n: sample size. standard_error: in `unit`.
    seeds: of the runs behind the value. holds: None without a bound; an absent
    value with a bound has failed.
    """

    name: str
    value: float | None
    unit: str = "1"
    bound: str | None = None
    n: int | None = None
    standard_error: float | None = None
    seeds: Sequence[int] = ()
    holds: bool | None = field(init=False)

    def __post_init__(self) -> None:
        value, error = _number(self.value), _number(self.standard_error)
        holds = None
        if self.bound is not None:
            _parsed(self.bound)
            holds = value is not None and within(value, self.bound)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "standard_error", error)
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        object.__setattr__(self, "holds", holds)

    def plain(self) -> dict[str, Any]:
        """The figure as it stands in summary.json."""
        names = ("name", "value", "unit", "bound", "holds", "n", "standard_error", "seeds")
        return {name: plain(getattr(self, name)) for name in names}


@dataclass
class Summary:
    """Everything a command leaves behind besides its data.

    command: as typed. versions: see :func:`versions`. extra: further plain
    facts (numbers, strings, lists, dictionaries) for the report.
    """

    command: str
    figures: list[Figure] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=lambda: versions())
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether no bound is missed."""
        return not self.failed

    @property
    def failed(self) -> list[str]:
        """Names of figures that miss their bound."""
        return [figure.name for figure in self.figures if figure.holds is False]

    def add(self, figure: Figure) -> None:
        """Append a figure; a second one of the same name is refused."""
        if any(known.name == figure.name for known in self.figures):
            raise ConfigError(f"figure {figure.name!r} is already in the summary. Name it apart.")
        self.figures.append(figure)

    def expect(self, bounds: Mapping[str, str]) -> None:
        """Put bounds on figures by name; a name without a figure becomes a failed one."""
        by_name = {figure.name: figure for figure in self.figures}
        for name, bound in bounds.items():
            known = by_name.get(name, Figure(name, None))
            by_name[name] = replace(known, bound=bound)
        self.figures[:] = by_name.values()

    def write(self, folder: Path | str) -> Path:
        """Write folder/summary.json; a reader sees the old file or the new one."""
        document = {
            "command": self.command,
            "holds": self.holds,
            "figures": [figure.plain() for figure in self.figures],
            "versions": plain(self.versions),
            "extra": plain(self.extra),
        }
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        path = Path(folder) / FILE
        write_atomic(path, text.encode())
        return path

    def table(self) -> Table:
        """The figures as a rich table, the same for every command."""
        from rich.table import Table

        table = Table(title="Figures", title_justify="left")
        table.add_column("figure", overflow="fold", min_width=16)
        for name in ("value", "± s.e.", "unit", "bound", "holds", "n", "seeds"):
            # A number that is cut short is wrong: let the name give way.
            table.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
        for figure in self.figures:
            style = {True: "green", False: "bold red", None: ""}[figure.holds]
            table.add_row(*cells(figure), style=style)
        return table


def read(folder: Path | str) -> Summary:
    """The summary in `folder`; every `holds` is computed afresh."""
    path = Path(folder) / FILE
    try:
        document = json.loads(path.read_bytes())
        figures = [_figure(row) for row in document["figures"]]
        versions, extra = dict(document["versions"]), dict(document["extra"])
        return Summary(str(document["command"]), figures, versions, extra)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Is this a run folder?"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged summary ({type(error).__name__}: {error}). Run the command again."
        ) from None


def _figure(row: Mapping[str, Any]) -> Figure:
    names = ("name", "value", "unit", "bound", "n", "standard_error", "seeds")
    return Figure(**{name: row[name] for name in names})


def cells(figure: Figure) -> list[str]:
    """A figure as the texts of one table row, in the order of `table`."""
    verdict = {True: "yes", False: "NO", None: ""}[figure.holds]
    seeds = ", ".join(map(str, figure.seeds))
    error = "" if figure.standard_error is None else f"{figure.standard_error:.2g}"
    value = "absent" if figure.value is None else digits(figure.value)
    n = "" if figure.n is None else f"{figure.n}"
    unit = "" if figure.unit == "1" else figure.unit
    return [figure.name, value, error, unit, figure.bound or "", verdict, n, seeds]


def digits(value: float) -> str:
    """Four digits that count, integers as they are."""
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e9 else f"{value:.4g}"


def binomial_error(fraction: float, n: int) -> float:
    """Standard error of a fraction of n independent samples."""
    return math.sqrt(max(0.0, fraction * (1.0 - fraction)) / n)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over runs and its standard error (None for a single run)."""
    array = np.asarray(values, np.float64)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else None
    return float(array.mean()), error


def versions() -> dict[str, Any]:
    """What produced the numbers: packages, platform, CPUs, threads."""
    found: dict[str, Any] = {"pib-twin": _version("pib-twin"), "python": platform.python_version()}
    found["numpy"] = np.__version__
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)
    found["platform"] = platform.platform()
    found["cpus"] = os.cpu_count()
    found["threads"] = torch.get_num_threads() if torch is not None else _threads()
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed (run from source)"


def _threads() -> int | None:
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdigit() else os.cpu_count()


def _number(value: Any) -> float | None:
    """A float, or None for what is absent (None, NaN)."""
    number = math.nan if value is None else float(value)
    return None if math.isnan(number) else number


def plain(value: Any) -> Any:
    """`value` in JSON's types; NaN becomes null, infinity a string."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
