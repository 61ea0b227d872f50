"""One non-ideality on a scale of severity: 0 is perfect, 1 is bad but seen in practice.

In between, severity is proportional to the size of the error that is made: to
the sigma of a noise, to the step of a converter, to the relative shot noise of
a photon level.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from twin.errors import ConfigError
from validation.studies.points import WHENS, Settings, Value

Scale = Literal["linear", "log", "bits", "levels", "photons", "time", "event"]
Kind = Literal["dial", "option"]

_PLAIN: tuple[Callable[[float], float], Callable[[float], float]] = (float, float)
_MEASURES: Mapping[Scale, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "linear": _PLAIN,
    "event": _PLAIN,
    "log": (math.log, math.exp),
    "bits": (lambda bits: 2.0**-bits, lambda step: -math.log2(step)),
    "levels": (lambda levels: 1 / (levels - 1), lambda step: 1 + 1 / step),
    "photons": (lambda n: n**-0.5, lambda noise: noise**-2.0),
    "time": (math.log1p, math.expm1),
}
"""Scale to (size of the error at a value, value at a size)."""


@dataclass(frozen=True, kw_only=True)
class NonIdeality:
    """One non-ideality: what is set at which severity.

    paths: dotted paths that all get the same value (see points.Point). unit: of
    the value. zero, severe: the values at severity 0 and 1. delivered: the value
    in the network as configured, None where its units differ. scale: the way
    from zero to severe (see `value`). kind: "dial" can be turned while the device
    works, "option" is fixed when it is made. about: what it is, with the source
    of its severity. word: an event's value as text, in place of `severe`.
    always: further settings at any severity; with_it: where it is above 0;
    in_loop: where it is above 0 and acts in training too. test_paths: in place of
    `paths` for what comes after training. whens: whether it can come then at all.
    """

    name: str
    paths: tuple[str, ...]
    unit: str
    zero: float
    severe: float
    delivered: float | None = None
    scale: Scale = "linear"
    kind: Kind = "dial"
    about: str = ""
    word: str | None = None
    always: Settings = ()
    with_it: Settings = ()
    in_loop: Settings = ()
    test_paths: tuple[str, ...] = ()
    whens: tuple[str, ...] = WHENS

    @property
    def title(self) -> str:
        """The name as words; the unit stands beside the value."""
        name = re.sub(r"_(k|c|s|lsb|rad)$", "", self.name).replace("_ohm", "_resistance")
        words = name.replace("_", " ")
        return re.sub(r"\b(adc|dac|inl|rtn|prnu|dsnu)\b", lambda m: m[1].upper(), words)

    @property
    def is_event(self) -> bool:
        """Whether it happens or not, without degrees."""
        return self.scale == "event"

    def value(self, severity: float) -> float:
        """The value at a severity in [0, 1].

        linear: straight. log: equal factors. bits: the converter's step 2**-b
        grows straight, b whole. levels: the step 1 / (levels - 1) grows straight.
        photons: the relative shot noise n**-0.5 grows straight. time: ln(1 + t / 1 s)
        grows straight, as relaxation does. event: severe at severity 1 only.
        """
        if not 0 <= severity <= 1:
            raise ConfigError(f"{self.name}: severity must be from 0 to 1, got {severity:g}.")
        if severity in (0, 1):
            return self.severe if severity else self.zero
        if self.is_event:
            return self.zero
        value = self._at(severity)
        return float(round(value)) if self.scale in ("bits", "levels") else value

    def severity(self, value: float) -> float:
        """The severity of a value, clipped to [0, 1]."""
        size, _ = _MEASURES[self.scale]
        low, high = size(self.zero), size(self.severe)
        return min(1.0, max(0.0, (size(value) - low) / (high - low)))

    def _at(self, severity: float) -> float:
        size, back = _MEASURES[self.scale]
        low, high = size(self.zero), size(self.severe)
        return back(low + severity * (high - low))

    @property
    def delivered_severity(self) -> float | None:
        """Where the network as configured stands; None if off the scale or unknown."""
        # With further settings the network as configured is no point of the curve.
        if self.delivered is None or self.always:
            return None
        severity = self.severity(self.delivered)
        return severity if math.isclose(self._at(severity), self.delivered) else None

    def own(self, severity: float, when: str = "test") -> dict[str, Value]:
        """Path to value at this severity; an absent event sets nothing."""
        if self.is_event and severity < 1:
            return {}
        value: Value = self.value(severity) if self.word is None else self.word
        if self.scale in ("bits", "levels"):
            value = int(value)
        paths = self.test_paths if when == "test" and self.test_paths else self.paths
        return dict.fromkeys(paths, value)

    def beside(self, severity: float, when: str = "test") -> dict[str, Value]:
        """What is set along with it."""
        found = dict(self.always)
        if severity > 0 and not (self.is_event and severity < 1):
            found |= dict(self.with_it) | (dict(self.in_loop) if when == "training" else {})
        return found

    def told(self, severity: float) -> str:
        """The value at a severity, with its unit, for people."""
        if self.word is not None:
            return self.word if severity == 1 else "none"
        return amount(self.value(severity), self.unit)


def amount(value: float, unit: str) -> str:
    """Three digits that count, and the unit."""
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return digits if unit == "1" else f"{digits} {unit}"


def at(turned: Mapping[NonIdeality, float], when: str = "test") -> Settings:
    """Settings with these non-idealities at these severities, the rest as delivered.

    What one of them is itself comes before what goes along with another.
    """
    beside: dict[str, Value] = {}
    own: dict[str, Value] = {}
    for one, severity in turned.items():
        beside |= one.beside(severity, when)
        own |= one.own(severity, when)
    return tuple(sorted((beside | own).items()))
