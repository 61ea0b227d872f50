"""A law beside what was measured of it, and how far the two may be apart.

The frame of `pib-twin validate`; it knows of no substrate. Five standard
errors bound what was sampled, a stated tolerance what was only computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twin.errors import ConfigError
from twin.key import Key
from validation.physics.estimates import Estimate
from validation.summary import Figure, digits

if TYPE_CHECKING:
    from rich.table import Table

SIGMAS = 5.0
WIDE = 110
"""Columns of a terminal from which on sources are shown."""

CAPTION = f"bound of |error|: s, {SIGMAS:g} standard errors; t, a stated tolerance"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One number, its law's value, and the distance that is allowed.

    measured, expected, standard_error, tolerance: all in `unit`. Exactly one of
    standard_error (then `sigmas` of them are allowed) and tolerance is given.
    n: sample size. source: of the expected value.
    """

    name: str
    measured: float
    expected: float
    source: str
    unit: str = "1"
    standard_error: float | None = None
    tolerance: float | None = None
    n: int | None = None
    sigmas: float = SIGMAS

    def __post_init__(self) -> None:
        if (self.standard_error is None) == (self.tolerance is None):
            raise ConfigError(
                f"check {self.name!r}: give either a standard error or a tolerance, "
                f"got {self.standard_error!r} and {self.tolerance!r}."
            )
        if not (math.isfinite(self.allowed) and self.allowed >= 0):
            raise ConfigError(
                f"check {self.name!r}: the bound must be finite and >= 0 {self.unit}, "
                f"got {self.allowed}. Was anything sampled?"
            )

    @property
    def error(self) -> float:
        """measured - expected."""
        return self.measured - self.expected

    @property
    def allowed(self) -> float:
        """The largest |error| that passes."""
        if self.tolerance is not None:
            return self.tolerance
        return self.sigmas * (self.standard_error or 0.0)

    @property
    def passes(self) -> bool:
        """Whether the law is kept; a measurement that is not a number fails."""
        return self.figure().holds is True

    def figure(self, seed: int = 0) -> Figure:
        """The measured value with its two-sided bound, as it goes into summary.json."""
        low, high = self.expected - self.allowed, self.expected + self.allowed
        return Figure(
            self.name,
            self.measured,
            self.unit,
            f">= {low:.15g} and <= {high:.15g}",
            self.n,
            self.standard_error,
            (seed,),
        )


@dataclass(frozen=True)
class Skipped:
    """A law that could not be looked at here, and what is missing for it."""

    name: str
    why: str


Outcome = Check | Skipped


@dataclass(frozen=True)
class Effort:
    """How much to sample, and from which stream."""

    key: Key
    quick: bool = False

    def n(self, full: int, quick: int) -> int:
        """The sample size for this effort."""
        return quick if self.quick else full

    def of(self, law: str) -> Effort:
        """The same with a stream of the law's own."""
        return Effort(self.key.child(law), self.quick)


Law = Callable[[Effort], Iterable[Outcome]]


def sampled(name: str, found: Estimate, expected: float, source: str, unit: str = "1") -> Check:
    """A sampled quantity: five of its standard errors are allowed."""
    return Check(
        name=name,
        measured=found.value,
        expected=expected,
        source=source,
        unit=unit,
        standard_error=found.standard_error,
        n=found.n,
    )


def held(name: str, true: bool, source: str, n: int | None = None) -> Check:
    """A statement that is either true (1) or not (0)."""
    return Check(
        name=name, measured=float(true), expected=1.0, tolerance=0.0, source=source, unit="1", n=n
    )


def run(laws: Iterable[Law], effort: Effort) -> Iterator[Outcome]:
    """Look at every law, each with a stream named after its function."""
    for law in laws:
        yield from law(effort.of(getattr(law, "__name__", repr(law))))


def table(title: str, outcomes: Iterable[Outcome], width: int = 120) -> Table:
    """All laws as a rich table; without the sources where there is no room for them."""
    from rich.table import Table

    shown = Table(
        title=title, caption=CAPTION, box=None, padding=(0, 1), pad_edge=False, expand=True
    )
    shown.title_justify = shown.caption_justify = "left"
    shown.add_column("law", overflow="fold", ratio=2)
    for name in ("measured", "expected", "error", "bound", "unit", "n", ""):
        # A number that is cut short is wrong: let names and sources give way.
        shown.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    if width >= WIDE:
        shown.add_column("source", overflow="fold", ratio=1)
    for outcome in outcomes:
        if isinstance(outcome, Check):
            row, style = cells(outcome), "green" if outcome.passes else "bold red"
        else:
            row, style = [outcome.name, *[""] * 6, "skip", outcome.why], "dim"
        shown.add_row(*row[: len(shown.columns)], style=style)
    return shown


def cells(check: Check) -> list[str]:
    """One row of the table."""
    kind = "t" if check.tolerance is not None else "s"
    return [
        check.name,
        digits(check.measured),
        digits(check.expected),
        f"{check.error:.1e}",
        f"{check.allowed:.1e} {kind}",
        "" if check.unit == "1" else check.unit,
        "" if check.n is None else f"{check.n}",
        "pass" if check.passes else "FAIL",
        check.source,
    ]
