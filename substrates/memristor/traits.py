"""Small tables of one technology that other modules turn into physics:
telegraph noise, nonlinear conduction, endurance, read disturb. SI units.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from substrates.memristor.curve import NonNegative, Positive
from twin.config import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[float, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rtn:
    """Random telegraph noise: one two-state trap in a fraction of the cells."""

    active_fraction: Fraction
    """Cells with an active trap."""
    amplitude: Fraction
    """Median over active cells of the relative step, dG / G."""
    amplitude_spread_ln: NonNegative = 0.0
    """Log-normal spread of the step over cells."""
    fastest_s: Positive
    """Shortest mean dwell time, seconds."""
    slowest_s: Positive
    """Longest mean dwell time, seconds; log-uniform in between."""
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fastest_s > self.slowest_s:
            raise ValueError(
                f"fastest_s ({self.fastest_s:g} s) must not exceed slowest_s "
                f"({self.slowest_s:g} s); exchange them"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Nonlinearity:
    """I = G V (1 + c3 V^2 + c5 V^4), an odd polynomial; G as V goes to 0."""

    cubic_per_v2: float
    """c3, per volt^2."""
    quintic_per_v4: float = 0.0
    """c5, per volt^4."""
    v_max: Positive
    """Largest |V| for which it holds, volts."""
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # dI/dV / G is quadratic in u = V^2: positive at both ends and, if it
        # lies inside, at the extremum.
        a, b, end = 3 * self.cubic_per_v2, 5 * self.quintic_per_v4, self.v_max**2
        at = [0.0, end]
        if b > 0 and 0 < -a / (2 * b) < end:
            at.append(-a / (2 * b))
        if min(1 + a * u + b * u * u for u in at) <= 0:
            raise ValueError("the current must rise with the voltage up to v_max; lower v_max")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Endurance:
    """Writes a cell survives. Give weibull_shape or spread_ln, not both."""

    median_cycles: Count
    """Writes after which half of the cells are broken."""
    weibull_shape: Positive | None = None
    """Shape of a Weibull law of cycles to failure."""
    spread_ln: Positive | None = None
    """Spread of a log-normal law of cycles to failure."""
    fails_to: Literal["low", "high"]
    """The end of the window a broken cell stays at."""
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.weibull_shape is None) == (self.spread_ln is None):
            raise ValueError("give either weibull_shape or spread_ln, and not both")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Disturb:
    """Conductance lost to reading: G (1 - relative_per_decade log10(N / N1))."""

    relative_per_decade: Fraction
    """Loss per decade of reads."""
    first_reads: Count
    """N1: reads up to which nothing is lost."""
    source: str
