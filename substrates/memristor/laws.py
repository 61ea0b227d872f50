"""What a technology's tables mean: write error, relaxation and drift.

Each law is a frozen dataclass of numbers with their source, plus the formula.
Conductances in siemens, times in seconds after the write, temperatures in
kelvin. A law says from when to when it was measured: earlier is the value
there, later is an error.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from scipy import constants
from torch import Tensor

from substrates.memristor.curve import Curve, NonNegative, Positive
from substrates.memristor.seconds import Seconds, at_least, checked_age, log_ratio
from substrates.memristor.tails import Tails, logistic, scattered
from twin.config import STRICT
from twin.errors import DialError

BOLTZMANN_EV = constants.Boltzmann / constants.elementary_charge
"""Boltzmann's constant, eV / K."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Programming:
    """Spread of written cells about their target, after write-verify."""

    name: str
    """What to call this table, e.g. "1 day"."""
    after_s: NonNegative
    """Time between the write and the measurement, seconds."""
    sigma: Curve
    """Standard deviation, siemens, as a function of the target."""
    accept_relative: Positive | None = None
    """Distance from the target at which the verify accepted, as a fraction of the
    target; None: not stated."""
    source: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Relaxation:
    """What becomes of a cell at rest: one trajectory, fixed by one N(0, 1) number n.

    log: G = G0 - m L + (s0 + s L) n with L = ln(t / first_s).
    power: G = G0 (t / first_s)^-nu, nu = exponent + exponent_spread n, >= 0.
    tables: the technology's programming tables at several times (see
    Technology); what they add in variance is added to the cells.
    """

    kind: Literal["log", "power", "tables"]
    first_s: Positive
    """First measured time, seconds; earlier returns the value there."""
    last_s: Positive
    """Last time for which the law is claimed, seconds; later is an error."""
    source: str
    temperature_k: Positive
    """Where it was measured, kelvin."""
    activation_ev: Positive | None = None
    """Activation energy of Arrhenius acceleration, eV; None: not known."""
    low_temperature_k: Positive | None = None
    """Lower end of the range the activation energy is claimed for, kelvin."""
    high_temperature_k: Positive | None = None
    """Upper end, kelvin."""
    mean_siemens_per_ln: NonNegative | None = None
    """log: m, loss per unit of ln t, siemens."""
    spread_siemens_per_ln: NonNegative | None = None
    """log: s, broadening per unit of ln t, siemens."""
    spread_siemens: NonNegative | None = None
    """log: s0, spread at first_s beyond the write error, siemens."""
    exponent: Curve | None = None
    """power: mean of nu, as a function of the target."""
    exponent_spread: Curve | None = None
    """power: standard deviation of nu over cells, as a function of the target."""

    def acceleration(self, temperature_k: float | None) -> float:
        """Arrhenius factor on time, exp[(Ea / k) (1 / T0 - 1 / T)]; 1 for None."""
        if temperature_k is None or temperature_k == self.temperature_k:
            return 1.0
        if self.activation_ev is None:
            raise DialError(
                f"relaxation was measured at {self.temperature_k:g} K and has no activation "
                f"energy, got {temperature_k:g} K. Set activation_ev in the technology."
            )
        low, high = self.low_temperature_k, self.high_temperature_k
        assert low is not None and high is not None  # checked when made
        if not low <= temperature_k <= high:
            raise DialError(
                f"temperature must be from {low:g} to {high:g} K, got {temperature_k:g} K. "
                f"Stay inside, or measure and widen the technology's range."
            )
        per_kelvin = self.activation_ev / BOLTZMANN_EV
        return math.exp(per_kelvin * (1 / self.temperature_k - 1 / temperature_k))

    def effective_s(self, age_s: Seconds, temperature_k: float | None = None) -> Seconds:
        """Time at temperature_k of the measurement that ages as much, >= first_s."""
        effective = checked_age(age_s) * self.acceleration(temperature_k)
        oldest = float(effective.max()) if isinstance(effective, Tensor) else effective
        if self.ends_before(oldest):
            raise DialError(
                f"relaxation holds up to {self.last_s:g} s after the write, got {oldest:g} s"
                f" at {self.temperature_k:g} K. Program again before, or extend the technology's"
                f" last_s with data."
            )
        return at_least(effective, self.first_s)

    def ends_before(self, effective_s: float) -> bool:
        """Whether the law says nothing of such a time any more."""
        return effective_s > self.last_s * (1 + 1e-9)

    def log_law(self, g: Tensor, normals: Tensor, effective_s: Seconds, tails: Tails) -> Tensor:
        """The law of kind "log" from programmed conductances g, siemens."""
        mean, slope, start = (
            self.mean_siemens_per_ln,
            self.spread_siemens_per_ln,
            self.spread_siemens,
        )
        assert mean is not None and slope is not None and start is not None  # kind "log"
        log_t = log_ratio(effective_s, self.first_s, g)
        return scattered(g - mean * log_t, start + slope * log_t, normals, tails)

    def power_law(
        self, g: Tensor, targets: Tensor, normals: Tensor, effective_s: Seconds, tails: Tails
    ) -> Tensor:
        """The law of kind "power"; logistic exponents make G log-logistic."""
        assert self.exponent is not None and self.exponent_spread is not None  # kind "power"
        n = logistic(normals).to(g.dtype) if tails == "log-logistic" else normals
        # An exponent below 0 would be a cell that rises for ever.
        nu = (self.exponent(targets) + self.exponent_spread(targets) * n).clamp(min=0)
        return g * (nu * -log_ratio(effective_s, self.first_s, g)).exp()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.first_s > self.last_s:
            raise ValueError(
                f"first_s ({self.first_s:g} s) must not exceed last_s ({self.last_s:g} s)"
            )
        own = {
            "log": ("mean_siemens_per_ln", "spread_siemens_per_ln", "spread_siemens"),
            "power": ("exponent", "exponent_spread"),
            "tables": (),
        }
        for kind, names in own.items():
            for name in names:
                if (getattr(self, name) is None) == (kind == self.kind):
                    verb = "needs" if kind == self.kind else "does not take"
                    raise ValueError(f"relaxation of kind {self.kind!r} {verb} {name}")
        self._require_temperatures()
        return self

    def _require_temperatures(self) -> None:
        low, high = self.low_temperature_k, self.high_temperature_k
        known = [v is not None for v in (self.activation_ev, low, high)]
        if any(known) != all(known):
            raise ValueError(
                "give activation_ev, low_temperature_k and high_temperature_k, or none of them"
            )
        if low is not None and high is not None and not low <= self.temperature_k <= high:
            raise ValueError(
                f"temperature_k ({self.temperature_k:g} K) must be from low_temperature_k "
                f"({low:g} K) to high_temperature_k ({high:g} K)"
            )
